"""A stdio MCP server that lends a model a task's access."""
