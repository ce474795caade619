"""A schema small enough to see through, for tests of the endpoint; it counts its mutations."""

from typing import Any, ClassVar

import graphene

from config.graphql import JSON

EFFECTS: list[Any] = []


class Refused(Exception):
    """Has the shape of the engine's errors."""

    code: ClassVar[str] = "EXECUTION_BUSY"
    retryable: ClassVar[bool] = True
    message = "Another call is being worked off."


class Colour(graphene.Enum):  # type: ignore[misc]  # graphene has no types
    RED = "RED"
    BLUE = "BLUE"


class Node(graphene.ObjectType):  # type: ignore[misc]  # graphene has no types
    id = graphene.ID(required=True)
    label = graphene.String()
    colour = Colour()
    count = graphene.Int()
    data = JSON()
    broken = graphene.String()
    needed = graphene.String(required=True)
    child = graphene.Field(lambda: Node)
    children = graphene.List(graphene.NonNull(lambda: Node))

    @staticmethod
    def resolve_broken(_root: Any, _info: Any) -> str:
        raise RuntimeError("password=hunter2")


def node(depth: int = 3) -> dict[str, Any]:
    below = node(depth - 1) if depth else None
    return {
        "id": f"n{depth}",
        "label": None if depth == 2 else "text",
        "colour": "RED",
        "count": depth,
        "data": {"a": [1, {"b": 2}]},
        "needed": None if depth == 0 else "here",
        "child": below,
        "children": [below, below] if below else [],
    }


class Query(graphene.ObjectType):  # type: ignore[misc]  # graphene has no types
    whoami = graphene.String()
    echo = graphene.Field(JSON, value=JSON())
    number = graphene.Field(graphene.Int, value=graphene.Int())
    paint = graphene.Field(Colour, colour=Colour())
    node = graphene.Field(Node, id=graphene.ID())
    refuse = graphene.String()
    forbidden = graphene.String()

    @staticmethod
    def resolve_whoami(_root: Any, info: Any) -> str:
        return str(info.context.require_identity().user_id)

    @staticmethod
    def resolve_echo(_root: Any, _info: Any, value: Any = None) -> Any:
        return value

    @staticmethod
    def resolve_number(_root: Any, _info: Any, value: int | None = None) -> int | None:
        return value

    @staticmethod
    def resolve_paint(_root: Any, _info: Any, colour: Any = None) -> Any:
        return colour

    @staticmethod
    def resolve_node(_root: Any, _info: Any, id: str = "") -> Any:  # noqa: A002  # as in the API
        return node()

    @staticmethod
    def resolve_refuse(_root: Any, _info: Any) -> str:
        raise Refused

    @staticmethod
    def resolve_forbidden(_root: Any, info: Any) -> str:
        return str(info.context.require_permission("workflows.change_workflow").user_id)


class Mutation(graphene.ObjectType):  # type: ignore[misc]  # graphene has no types
    store = graphene.Field(JSON, input=JSON())

    @staticmethod
    def resolve_store(_root: Any, _info: Any, input: Any = None) -> Any:  # noqa: A002  # as in the API
        EFFECTS.append(input)
        return input


schema = graphene.Schema(query=Query, mutation=Mutation)
