"""The typed part of the SDK, made by `make sdk` from the description of the API: models, and methods of both kinds."""
