/** A real HTTP server of a test's own making, on a port of the kernel's choice. */
import { createServer } from "node:http";
import type { IncomingMessage, ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

export interface Listening extends AsyncDisposable {
  readonly url: string;
  /** Headers and JSON bodies of the requests so far. */
  readonly requests: { headers: IncomingMessage["headers"]; path: string; body: unknown }[];
}

/** Answers the nth request, counted from 1. */
export type Answer = (response: ServerResponse, n: number) => void;

export async function listening(answer: Answer): Promise<Listening> {
  const requests: Listening["requests"] = [];
  const server = createServer((request, response) => {
    let text = "";
    request.setEncoding("utf8");
    request.on("data", (part: string) => (text += part));
    request.on("end", () => {
      const body: unknown = text === "" ? undefined : JSON.parse(text);
      requests.push({ headers: request.headers, path: request.url ?? "", body });
      answer(response, requests.length);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  return {
    url: `http://127.0.0.1:${port}`,
    requests,
    [Symbol.asyncDispose]: () => {
      server.closeAllConnections();
      return new Promise((resolve) => server.close(() => resolve()));
    },
  };
}

/** Answer with JSON. */
export function json(
  response: ServerResponse,
  status: number,
  body: unknown,
  headers: Record<string, string> = {},
): void {
  response.writeHead(status, { "content-type": "application/json", ...headers });
  response.end(JSON.stringify(body));
}
