"""A component whose class is its YAML's shape, checked whole with file and line."""

# No postponed annotations here: Dagster reads those of components as they are.
from typing import Self

import dagster as dg
import pydantic

from batch_etl.strict import Strict


class StrictComponent(dg.Component, Strict):
    """Base of the components that are written in YAML."""

    @classmethod
    def get_model_cls(cls) -> type[pydantic.BaseModel]:
        """The YAML's shape is this class itself, so that all of it is checked with file and line.

        A class that Dagster derives would also take any text for each key (a template of its own),
        and would complain about that beside every real mistake.
        """
        return cls

    @classmethod
    def load(  # pyright: ignore[reportIncompatibleMethodOverride]
        cls,
        attributes: pydantic.BaseModel | None,
        context: dg.ComponentLoadContext,  # noqa: ARG003
    ) -> Self:
        """Dagster's, not ``Strict``'s: ``attributes`` were checked already, or are left out."""
        if attributes is None:
            return cls()
        assert isinstance(attributes, cls)  # noqa: S101
        return attributes
