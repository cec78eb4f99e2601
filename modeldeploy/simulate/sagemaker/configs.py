"""CreateEndpointConfig, DescribeEndpointConfig, DeleteEndpointConfig, ListEndpointConfigs."""

from __future__ import annotations

import attrs

from modeldeploy.simulate.sagemaker.errors import invalid, not_simulated
from modeldeploy.simulate.sagemaker.listing import listed
from modeldeploy.simulate.sagemaker.world import Json, Record, Shelf, World


@attrs.define(eq=False)
class Configs:
    """The endpoint configurations of the account."""

    world: World
    models: Shelf[Record]
    shelf: Shelf[Record]

    def create(self, request: Json) -> Json:
        """Make a configuration out of models that are there."""
        self.shelf.check_free(request["EndpointConfigName"])
        self._check(request)
        return {"EndpointConfigArn": self._add(request).arn}

    def _check(self, request: Json) -> None:
        production, shadows = request["ProductionVariants"], request.get("ShadowProductionVariants", [])
        names = [each["VariantName"] for each in (*production, *shadows)]
        if len(set(names)) < len(names):
            raise invalid("Variant names of an endpoint configuration must be unique.")
        if shadows and (len(production), len(shadows)) != (1, 1):
            raise invalid("Shadow variants need exactly one production variant and one shadow variant.")
        for variant in (*production, *shadows):
            self._check_variant(variant, request, alone=len(names) == 1)
        if "AsyncInferenceConfig" in request:
            self._check_async(request)

    def _check_async(self, request: Json) -> None:
        if request.get("ShadowProductionVariants"):
            raise invalid("Shadow variants are not supported with asynchronous inference.")
        if any("ServerlessConfig" in each for each in request["ProductionVariants"]):
            raise invalid("Serverless variants are not supported with asynchronous inference.")
        if "NotificationConfig" in request["AsyncInferenceConfig"]["OutputConfig"]:
            raise not_simulated("NotificationConfig of asynchronous inference")
        if "S3OutputPath" not in request["AsyncInferenceConfig"]["OutputConfig"]:
            raise invalid("S3OutputPath is required for asynchronous inference.")

    def _check_variant(self, variant: Json, request: Json, *, alone: bool) -> None:
        if "ModelName" not in variant:
            raise not_simulated("endpoint configurations for inference components")
        self.models.get(variant["ModelName"])
        if "ServerlessConfig" in variant:
            _check_serverless(variant, alone=alone, captured="DataCaptureConfig" in request)
        elif "InstanceType" not in variant and "InstancePools" not in variant:
            raise invalid(f"InstanceType is required for production variant {variant['VariantName']}.")
        elif "InitialInstanceCount" not in variant:
            raise invalid(f"InitialInstanceCount is required for production variant {variant['VariantName']}.")

    def _add(self, request: Json) -> Record:
        world, name = self.world, request["EndpointConfigName"]
        config = Record(name, self.shelf.arn(name), request, world.clock.now(), world.visible_at())
        with world.lock:
            self.shelf.add(config)
            world.tag(config.arn, request.get("Tags", []))
        return config

    def describe(self, request: Json) -> Json:
        """Tell what a configuration was created with; a weight that was not given is 1."""
        config = self.shelf.get(request["EndpointConfigName"])
        given = {name: value for name, value in config.request.items() if name != "Tags"}
        for member in ("ProductionVariants", "ShadowProductionVariants"):
            if member in given:
                given[member] = [{"InitialVariantWeight": 1.0, **each} for each in given[member]]
        return {**given, "CreationTime": config.created, "EndpointConfigArn": config.arn}

    def delete(self, request: Json) -> Json:
        """Remove a configuration; one that an endpoint uses is not kept."""
        with self.world.lock:
            config = self.shelf.remove(request["EndpointConfigName"])
            self.world.tags.pop(config.arn, None)
        return {}

    def page(self, request: Json) -> Json:
        """List the configurations."""
        return listed(self.shelf.values(), request, "EndpointConfigs", self._summary)

    def _summary(self, config: Record) -> Json:
        return {
            "EndpointConfigName": config.name,
            "EndpointConfigArn": config.arn,
            "CreationTime": config.created,
        }


def _check_serverless(variant: Json, *, alone: bool, captured: bool) -> None:
    if captured:
        raise invalid("Data capture is not supported for serverless variants.")
    if not alone:
        raise invalid("Endpoint configurations with a serverless variant must have no other variant.")
    if "InstanceType" in variant or "InitialInstanceCount" in variant:
        raise invalid("Instance settings are not allowed for a variant with ServerlessConfig.")
    if variant["ServerlessConfig"]["MemorySizeInMB"] % 1024:
        raise invalid("MemorySizeInMB of ServerlessConfig must be a multiple of 1024.")
