"""The OpenAPI 3.1 description of the API, made from the model and one declaration for each operation."""
