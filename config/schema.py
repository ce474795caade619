"""The schema: joins the queries and mutations of the apps; nothing else."""

import graphene

from executions import schema as executions
from workflows import schema as workflows


class Query(executions.Query, workflows.Query, graphene.ObjectType):  # type: ignore[misc]  # graphene has no types
    """Reading."""


class Mutation(executions.Mutation, workflows.Mutation, graphene.ObjectType):  # type: ignore[misc]  # graphene has no types
    """Changing."""


schema = graphene.Schema(query=Query, mutation=Mutation)
