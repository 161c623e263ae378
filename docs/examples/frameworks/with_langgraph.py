# pip install './jitvault-0.1.0-py3-none-any.whl[postgres]' langchain langchain-openai
from langchain.agents import create_agent
from langchain_core.language_models import BaseChatModel
from sqlalchemy.exc import SQLAlchemyError

from jitvault.agent import TaskEnded, task


def answer(question: str, model: BaseChatModel | str = "openai:gpt-5.2") -> str:
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

        graph = create_agent(model, tools=[query])
        return graph.invoke({"messages": [("user", question)]})["messages"][-1].text


if __name__ == "__main__":
    print(answer("How many orders are there?"))
