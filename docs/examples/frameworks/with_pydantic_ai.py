# pip install './jitvault-0.1.0-py3-none-any.whl[postgres]' 'pydantic-ai-slim[openai]'
from pydantic_ai import Agent
from pydantic_ai.models import Model
from sqlalchemy.exc import SQLAlchemyError

from jitvault.agent import TaskEnded, task


def answer(question: str, model: Model | str = "openai:gpt-5.2") -> str:
    with task("orders.yaml") as t:
        engine = t.sqlalchemy_engine()

        def query(sql: str) -> str:
            """Run one query in the orders database. Return its first 100 rows, or what is wrong with it."""
            try:
                with engine.connect() as connection:
                    return str(connection.exec_driver_sql(sql).fetchmany(100))
            except (SQLAlchemyError, TaskEnded) as error:
                # also where the access was revoked meanwhile: the model reads why, and stops
                return str(error)

        return Agent(model, tools=[query]).run_sync(question).output


if __name__ == "__main__":
    print(answer("How many orders are there?"))
