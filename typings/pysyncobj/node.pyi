from typing import Any

class Node:
    address: str
    def __init__(self, id: str, **kwargs: Any) -> None: ...
    @property
    def id(self) -> str: ...
