"""Pipecat as the caller: a line of JSON, `{way, url, ...}`, for each thing to do; a line for what came of it.

Runs in the environment that `make clients` makes. A pipeline without a voice: the LLM service, what it pushes, and
the assistant's aggregator, which runs the calls' results back into the service as in any bot.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from typing import Any

from loguru import logger

logger.remove()  # its lines would be many
logger.add(sys.stderr, level="CRITICAL")

from pipecat.adapters.llm.schemas.function_schema import FunctionSchema  # noqa: E402
from pipecat.adapters.llm.schemas.tools_schema import ToolsSchema  # noqa: E402
from pipecat.frames.frames import (  # noqa: E402
    EndFrame,
    FunctionCallResultFrame,
    InterruptionFrame,
    LLMContextFrame,
    LLMFullResponseEndFrame,
    LLMTextFrame,
    LLMUpdateSettingsFrame,
    MetricsFrame,
)
from pipecat.metrics.metrics import LLMUsageMetricsData  # noqa: E402
from pipecat.pipeline.pipeline import Pipeline  # noqa: E402
from pipecat.pipeline.worker import PipelineParams, PipelineWorker  # noqa: E402
from pipecat.processors.aggregators.llm_context import LLMContext  # noqa: E402
from pipecat.processors.aggregators.llm_response_universal import LLMContextAggregatorPair  # noqa: E402
from pipecat.processors.frame_processor import FrameProcessor  # noqa: E402
from pipecat.services.openai.llm import OpenAILLMService  # noqa: E402
from pipecat.services.settings import LLMSettings  # noqa: E402
from pipecat.workers.runner import WorkerRunner  # noqa: E402

PATIENCE = 10.0  # seconds that anything here may take

Json = dict[str, Any]
SCHEMAS = [
    FunctionSchema("weather", "Say how the weather is.", {"city": {"type": "string"}}, ["city"]),
    FunctionSchema("clock", "Say how late it is.", {}, []),
]

END = FunctionSchema("end_call", "End the call.", {}, [])


class Tap(FrameProcessor):
    """Stands where the voice would: notes what it would say."""

    def __init__(self, heard: Json) -> None:
        super().__init__()
        self.heard = heard
        self.replies = 0
        self._changed = asyncio.Condition()

    async def process_frame(self, frame: Any, direction: Any) -> None:
        """Note one frame and pass it on."""
        await super().process_frame(frame, direction)
        if isinstance(frame, LLMTextFrame):
            self.heard["words"].append(frame.text)
        elif isinstance(frame, FunctionCallResultFrame):
            self.heard["results"].append([frame.function_name, frame.result])
        elif isinstance(frame, LLMFullResponseEndFrame):
            self.replies += 1
        elif isinstance(frame, MetricsFrame):
            for each in frame.data:
                if isinstance(each, LLMUsageMetricsData):
                    self.heard["usage"] = [each.value.prompt_tokens, each.value.completion_tokens]
        await self.push_frame(frame, direction)
        async with self._changed:
            self._changed.notify_all()

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until something holds."""
        async with self._changed:
            await self._changed.wait_for(holds)


async def speaks(asked: Json, heard: Json) -> None:
    """Answer one turn of the caller's; with `leaves` the caller speaks at the first word."""
    settings = OpenAILLMService.Settings(model="m1", extra={"user": asked["user"], "extra_body": asked.get("body", {})})
    headers = asked.get("headers")
    service = OpenAILLMService(base_url=asked["url"], api_key="sk-caller", default_headers=headers, settings=settings)

    async def run(params: Any) -> None:
        heard["calls"].append([params.function_name, params.arguments, params.tool_call_id])
        await params.result_callback("rain" if params.function_name == "weather" else "noon")

    said: Any = "Hello there, my friend."
    if image := asked.get("image"):
        said = [{"type": "text", "text": said}, {"type": "image_url", "image_url": {"url": image}}]
    context = LLMContext([{"role": "user", "content": said}])
    if asked.get("tools"):
        schemas = [*SCHEMAS, END] if asked.get("ends") else SCHEMAS
        context.set_tools(ToolsSchema(standard_tools=schemas))
        for schema in schemas:
            service.register_function(schema.name, run)
    tap = Tap(heard)
    pipeline = Pipeline([service, tap, LLMContextAggregatorPair(context).assistant()])
    params = PipelineParams(enable_metrics=True, enable_usage_metrics=True)
    worker = PipelineWorker(pipeline, params=params, cancel_on_idle_timeout=False)

    @worker.event_handler("on_pipeline_error")
    async def failed(_: Any, frame: Any) -> None:
        heard["error"] = {"class": type(frame.exception).__name__, "message": frame.error}
        heard["error"]["status"] = getattr(frame.exception, "status_code", None)

    started = asyncio.Event()

    @worker.event_handler("on_pipeline_started")
    async def start(*_: Any) -> None:
        started.set()

    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    running = asyncio.create_task(runner.run())
    try:
        await started.wait()
        if asked.get("marks"):  # as `FilterIncompleteUserTurnStrategies` does
            await worker.queue_frame(LLMUpdateSettingsFrame(delta=LLMSettings(filter_incomplete_user_turns=True)))
        await worker.queue_frame(LLMContextFrame(context))
        if asked.get("leaves"):
            await tap.until(lambda: bool(heard["words"]))
            await worker.queue_frame(InterruptionFrame())
        else:
            await tap.until(lambda: tap.replies >= asked.get("replies", 1))
        await worker.queue_frame(EndFrame())
        await running
    finally:
        running.cancel()
    heard["history"] = context.get_messages()


async def asks_once(asked: Json, heard: Json) -> None:
    """Ask for a reply in one piece, as Pipecat's summaries do."""
    settings = OpenAILLMService.Settings(model="m1", extra={"user": asked["user"], "extra_body": asked.get("body", {})})
    service = OpenAILLMService(base_url=asked["url"], api_key="sk-caller", settings=settings)
    heard["words"].append(
        await service.run_inference(LLMContext([{"role": "user", "content": "Sum it up, my friend."}]))
    )


async def turn(asked: Json, heard: Json) -> None:
    """Answer one turn, as every client is asked to: with tools it takes two replies."""
    if asked.get("whole"):
        await asks_once(asked, heard)
        return
    await speaks({"replies": 2 if asked.get("tools") else 1, **asked}, heard)
    heard["ran"] = [[name, arguments] for name, arguments, _ in heard["calls"]]


WAYS = {"turn": turn, "chats": speaks, "asks_once": asks_once}


async def main() -> None:
    """Do what each line says, until there are no more."""
    while line := await asyncio.to_thread(sys.stdin.readline):
        asked = {"user": "", **json.loads(line)}
        heard: Json = {"words": [], "calls": [], "results": [], "usage": None, "error": None}
        try:
            await asyncio.wait_for(WAYS[asked["way"]](asked, heard), PATIENCE)
        except Exception as error:
            heard["error"] = {"class": type(error).__name__, "message": str(error)}
        heard["words"] = "".join(heard["words"])
        print(json.dumps(heard, default=str), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
