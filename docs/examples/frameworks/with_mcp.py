# pip install openai-agents; pipx install './jitvault-0.1.0-py3-none-any.whl[mcp]'
import asyncio
import os

from agents import Agent, Model, RunConfig, Runner
from agents.mcp import MCPServerStdio

# the server needs the agent's identity, and nothing else of this program's
OWN = ("BAO_", "VAULT_", "JITVAULT_", "SPIFFE_")
IDENTITY = {name: value for name, value in os.environ.items() if name.startswith(OWN)}
COMMAND = ["mcp", "--agent", "research-agent", "--tool", "psql"]


async def answer(question: str, model: Model | str = "gpt-5.2") -> str:
    # `wait_for_access` answers within 50 s, and all others within 3 s
    server = MCPServerStdio(
        {"command": "jitvault", "args": COMMAND, "env": IDENTITY}, client_session_timeout_seconds=60
    )
    async with server:
        agent = Agent("Orders", "Ask for access, query by psql, finish.", mcp_servers=[server], model=model)
        # a trace has the rows in it, and goes to OpenAI whoever's model it is
        result = await Runner.run(agent, question, max_turns=50, run_config=RunConfig(tracing_disabled=True))
        return result.final_output


if __name__ == "__main__":
    print(asyncio.run(answer("How many orders are there?")))
