"""An example of a plug-in for Kvorum: a step and a workflow, found through entry points. See docs/workflows.md."""
