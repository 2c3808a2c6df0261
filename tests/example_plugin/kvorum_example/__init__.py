"""An example of a plug-in for Kvorum: one thing of each kind, found through entry points. See docs/plugins.md."""
