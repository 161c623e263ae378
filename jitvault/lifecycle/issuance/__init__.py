"""Issue the token of an approved task.

An issue that did not finish is resolved here as well.
"""
