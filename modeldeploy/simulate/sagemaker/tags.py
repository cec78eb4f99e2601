"""AddTags, DeleteTags, ListTags."""

from __future__ import annotations

import attrs

from modeldeploy.simulate.sagemaker.errors import invalid
from modeldeploy.simulate.sagemaker.world import Json, World

_MOST = 50


@attrs.define(eq=False)
class Tags:
    """The tags of everything in the account, by its ARN."""

    world: World

    def add(self, request: Json) -> Json:
        """Add tags to a thing, or give those that it has other values."""
        with self.world.lock:
            tags = self._of(request["ResourceArn"])
            added = {each["Key"]: each["Value"] for each in request["Tags"]}
            if len({*tags, *added}) > _MOST:
                raise invalid(f"The number of tags must not be more than {_MOST}.")
            tags.update(added)
            return {"Tags": _listed(tags)}

    def delete(self, request: Json) -> Json:
        """Take tags from a thing; those that it has not are passed over."""
        with self.world.lock:
            tags = self._of(request["ResourceArn"])
            for key in request["TagKeys"]:
                tags.pop(key, None)
        return {}

    def page(self, request: Json) -> Json:
        """List the tags of a thing: one page, for a page has never fewer than the most that there can be."""
        with self.world.lock:
            return {"Tags": _listed(self._of(request["ResourceArn"]))}

    def _of(self, arn: str) -> dict[str, str]:
        if arn not in self.world.tags:
            raise invalid(f'Could not find resource "{arn}".')
        return self.world.tags[arn]


def _listed(tags: dict[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in tags.items()]
