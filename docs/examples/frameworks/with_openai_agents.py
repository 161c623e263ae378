# pip install './jitvault-0.1.0-py3-none-any.whl[postgres]' 'sqlalchemy[asyncio]' openai-agents
import asyncio

from agents import Agent, Model, RunConfig, Runner, function_tool
from sqlalchemy.exc import SQLAlchemyError

from jitvault.agent import TaskEnded, task


async def answer(question: str, model: Model | str = "gpt-5.2") -> str:
    async with task("orders.yaml") as t:
        engine = t.async_sqlalchemy_engine()

        @function_tool
        async def query(sql: str) -> str:
            """Run one query in the orders database. Return its first 100 rows, or what is wrong with it."""
            try:
                async with engine.connect() as connection:
                    return str((await connection.exec_driver_sql(sql)).fetchmany(100))
            except (SQLAlchemyError, TaskEnded) as error:
                # also where the access was revoked meanwhile: the model reads why, and stops
                return str(error)

        agent = Agent("Orders", tools=[query], model=model)
        # a trace has the rows in it, and goes to OpenAI whoever's model it is
        result = await Runner.run(agent, question, run_config=RunConfig(tracing_disabled=True))
        return result.final_output


if __name__ == "__main__":
    print(asyncio.run(answer("How many orders are there?")))
