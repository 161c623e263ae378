"""What a task is: its documents, its states and its event chain.

The documents are spec, template, revision, approval, extension and delegation.
"""
