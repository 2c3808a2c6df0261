"""The replicated state in SQLite: tables made from the model, what a log entry does to them, copies of them, queries."""
