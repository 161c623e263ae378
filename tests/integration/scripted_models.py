"""Run a recipe of docs/examples/frameworks with a model that does as a script says.

It is a program of the frameworks' own environment: `scripted_models.py RECIPE KEPT`. It prints a line of JSON: the
answer, every text that the model was given, the task, and the login that it had. `KEPT` is where the tools of a server
leave theirs. With a third word, why, the task is over for that reason, and no server is needed.
"""

from __future__ import annotations

import asyncio
import json
import shlex
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import jitvault.agent

RECIPE, KEPT, *WHY = sys.argv[1:]
QUESTION = "How many orders are there?"
COUNT = "SELECT count(*) FROM orders"
Act = tuple[str, dict[str, Any]]

seen: list[str] = []
known: dict[str, str] = {}
# what the tools of a server said, before each step of the script
answers: list[dict[str, Any]] = []


def queries(turn: int, last: str) -> Act | str:
    """Query what is not there, then count; the answer is what the second query gave."""
    script: list[Act | str] = [("query", {"sql": "SELECT word FROM nowhere"}), ("query", {"sql": COUNT})]
    if turn == 1:
        assert "nowhere" in last and "does not exist" in last, last
    return script[turn] if turn < len(script) else f"There are {last}."


def calls(turn: int, last: str) -> Act | str:
    """Ask for access, have psql keep the login and count, and give the access back."""
    said = json.loads(last) if turn else {}
    if said.get("state") == "running":
        return "poll", {"id": said["id"]}
    assert "error" not in said, said
    answers.append(said)
    known["task"] = answers[min(1, len(answers) - 1)].get("task", "")
    of_task = {"task": known["task"]}
    keep = rf"\! printf %s $DATABASE_URL >{shlex.quote(KEPT)}"
    asked = {"template": "postgres-readonly", "parameters": {"database": "app"}, "reason": QUESTION, "tools": ["psql"]}
    script: list[Act | str] = [
        ("request_access", asked),
        ("wait_for_access", {"seconds": 20, **of_task}),
        ("run", {**of_task, "tool": "psql", "args": ["-c", keep]}),
        ("run", {**of_task, "tool": "psql", "args": ["-AtXc", COUNT]}),
        ("finish", of_task),
    ]
    step = len(answers) - 1
    return script[step] if step < len(script) else f"There are {answers[-2]['stdout'].strip()}."


def of_pydantic_ai(act: Callable[[int, str], Act | str]) -> Any:
    from pydantic_ai.messages import ModelMessagesTypeAdapter, ModelResponse, TextPart, ToolCallPart
    from pydantic_ai.models.function import FunctionModel

    def respond(messages: list[Any], info: Any) -> ModelResponse:
        seen.append(ModelMessagesTypeAdapter.dump_json(messages).decode() + repr(info))
        turn = sum(message.kind == "response" for message in messages)
        found = act(turn, str(messages[-1].parts[-1].content))
        return ModelResponse([TextPart(found) if isinstance(found, str) else ToolCallPart(*found)])

    return FunctionModel(respond)


def of_langgraph(act: Callable[[int, str], Act | str]) -> Any:
    from langchain_core.language_models import GenericFakeChatModel
    from langchain_core.messages import AIMessage

    class Scripted(GenericFakeChatModel):
        def bind_tools(self, tools: Any, **_: Any) -> Any:
            seen.append(repr(tools))
            return self

        def _generate(self, messages: list[Any], *rest: Any, **more: Any) -> Any:
            seen.append("".join(message.model_dump_json() for message in messages))
            last.append(str(messages[-1].content))
            return super()._generate(messages, *rest, **more)

    def script() -> Any:
        while True:
            found = act(len(last) - 1, last[-1])
            if isinstance(found, str):
                yield AIMessage(found)
            else:
                yield AIMessage("", tool_calls=[{"name": found[0], "args": found[1], "id": f"call-{len(last)}"}])

    last: list[str] = []
    return Scripted(messages=script())


def of_openai_agents(act: Callable[[int, str], Act | str]) -> Any:
    from agents.testing import ModelStep, ScriptedModel, assistant_message, function_call

    def respond(call: Any) -> list[Any]:
        seen.append(f"{call.system_instructions}{json.dumps(call.input)}{call.tools}")
        given = call.input if isinstance(call.input, list) else []
        outputs = [each["output"] for each in given if each.get("type") == "function_call_output"]
        last = outputs[-1] if outputs else ""
        found = act(len(outputs), last if isinstance(last, str) else last[0]["text"])
        if isinstance(found, str):
            return [assistant_message(found)]
        return [function_call(*found, call_id=f"call-{len(outputs)}")]

    return ScriptedModel([ModelStep.respond(respond) for _ in range(30)])


MODELS = {
    "with_pydantic_ai": of_pydantic_ai,
    "with_langgraph": of_langgraph,
    "with_openai_agents": of_openai_agents,
    "with_mcp": of_openai_agents,
}


class Noted(jitvault.agent.Task):
    """A task whose login the test learns, to search for it."""

    def __init__(self, *words: Any, **options: Any) -> None:
        super().__init__(*words, **options)
        mine.append(self)


class Over:
    """A task that was revoked in the middle of its block."""

    def __init__(self, *_: Any) -> None:
        """Ask nobody."""

    def __enter__(self) -> Over:
        return self

    async def __aenter__(self) -> Over:
        return self

    def __exit__(self, *_: object) -> None:
        """Give nothing back."""

    async def __aexit__(self, *_: object) -> None:
        """Give nothing back."""

    def sqlalchemy_engine(self) -> Over:
        return self

    async_sqlalchemy_engine = sqlalchemy_engine

    def connect(self) -> None:
        raise jitvault.agent.TaskEnded(WHY[0])


def script(turn: int, last: str) -> Act | str:
    if WHY:
        return f"I was told: {last}" if turn else ("query", {"sql": COUNT})
    if RECIPE == "with_mcp":
        return calls(turn, last)
    known.update(task=mine[0].task_id, url=mine[0].secret("url").reveal())
    return queries(turn, last)


mine: list[Noted] = []
jitvault.agent.task = Over if WHY else Noted  # type: ignore[assignment]
# the directory of the recipe, as where it is run as a program
sys.path.insert(0, ".")
answer = import_module(RECIPE).answer(QUESTION, MODELS[RECIPE](script))
if asyncio.iscoroutine(answer):
    answer = asyncio.run(answer)
if RECIPE == "with_mcp":
    known["url"] = Path(KEPT).read_text()
print(json.dumps({"answer": answer, "seen": seen, **known}))
