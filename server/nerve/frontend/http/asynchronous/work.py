"""A request that was accepted before, answered as predict_tokens would answer it now."""

from __future__ import annotations

from typing import Final

from nerve.config.server import ServerConfig
from nerve.errors import NerveError, ServerFault
from nerve.exchange import Exchange, Exchanges
from nerve.frontend.http.baseten import PredictTokensRequest, answer_body, predict_tokens
from nerve.frontend.http.body import parse
from nerve.frontend.status import outcome
from nerve.jobs.records import ClaimedJob, NewJob
from nerve.jobs.service import Answered, JobService
from nerve.jobs.stores import new_job_store
from nerve.metrics.jobs import JobMetrics
from nerve.service.inference import Call, InferenceService
from nerve.types import ModelInfo, SpanAnswer

PROTOCOL: Final = "async"
ROUTE: Final = "/async/predict_tokens"
"""In metrics, logs and traces, also of requests that named a model."""
FIRST_PRIORITY: Final = 8
"""Of the ten that the engine knows, where a request is 5 unless somebody says otherwise: 0 to 2 of
a request that is answered later are 8 to 10, so that those whose callers wait go first."""


class PredictTokensWork:
    """Runs requests, each in an exchange of its own: a `nerve.jobs.service.Work`."""

    def __init__(self, inference: InferenceService, exchanges: Exchanges) -> None:
        self._inference, self._exchanges = inference, exchanges

    async def __call__(self, claimed: ClaimedJob, deadline: float) -> Answered:
        """Answer it by `deadline`, in monotonic seconds.

        Raises:
            NerveError: what predict_tokens would have answered with.
        """
        job = claimed.job
        exchange = Exchange(PROTOCOL, "baseten", "", ROUTE, received_bytes=len(job.body))
        exchange.request_id, exchange.key = job.request_id, job.key
        with self._exchanges.open(exchange, {}):
            try:
                answered = await self._answer(job, deadline)
            except Exception as error:  # boundary: told to the observers, and handed on
                fault = error if isinstance(error, NerveError) else ServerFault(str(error))
                exchange.status, exchange.reason = str(outcome(fault).baseten), fault.reason
                raise
            exchange.status, exchange.sent_bytes = "200", len(answered.body)
        return answered

    async def _answer(self, job: NewJob, deadline: float) -> Answered:
        asked = await parse(job.body, PredictTokensRequest)
        call = Call(
            job.model,
            job.version,
            deadline,
            max_texts=len(asked.inputs),  # as many as the limit was when it was accepted
            priority=FIRST_PRIORITY + job.priority,
        )

        def write(info: ModelInfo, answer: SpanAnswer) -> Answered:
            return Answered(str(info.version), answer_body(asked, info, answer))

        return await predict_tokens(self._inference, call, asked, write)


def new_jobs(
    inference: InferenceService, config: ServerConfig, exchanges: Exchanges, metrics: JobMetrics
) -> JobService:
    """What keeps requests, and runs them here. Raises ConfigInvalid: secrets cannot be used."""
    work = PredictTokensWork(inference, exchanges)
    return JobService(new_job_store(config), config, metrics, work=work)
