"""Who may do what: four roles, each reaching as far as the ones before it."""

from __future__ import annotations

from enum import StrEnum

from rollout.domain.errors import InvalidValue


class Role(StrEnum):
    """`evaluate`: clients and callers; `viewer`: see; `operator`: change; `admin`: hand out access."""

    EVALUATE = "evaluate"
    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"

    def reaches(self, needed: Role) -> bool:
        """Tell whether this role is enough where another is asked for."""
        order = list(Role)
        return order.index(self) >= order.index(needed)


def check_role(text: object) -> Role:
    """Return a role by its name.

    Raises:
        InvalidValue: there is no such role.
    """
    try:
        return Role(str(text))
    except ValueError:
        names = ", ".join(Role)
        raise InvalidValue(f"there is no role {text!r}; there are {names}", field="role") from None
