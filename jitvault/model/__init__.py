"""What a task is: spec, template, revision, approval, extension, delegation, states, event chain."""
