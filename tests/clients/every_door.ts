/** Prints what a method of the client answers; $ASKED says which, of which server, for which texts. */
import { NerveClient } from "../../clients/javascript/src/index.ts";

interface Asked {
  url: string;
  method: "extract" | "predict";
  texts: string[];
}

const { url, method, texts } = JSON.parse(process.env["ASKED"] ?? "") as Asked;
const client = new NerveClient(url, { offsetUnit: "codepoint" });
console.log(JSON.stringify(await client[method](texts)));
