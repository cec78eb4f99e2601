"""What a recipe must hold; its keys know no case."""

from __future__ import annotations

import pytest

from modeldeploy.simulate.greengrass.recipes import faults, lowered


def _cased(found, case):
    if isinstance(found, dict):
        return {case(key): _cased(value, case) for key, value in found.items()}
    return [_cased(each, case) for each in found] if isinstance(found, list) else found


@pytest.mark.parametrize(
    "case", [str.lower, str.upper, str.title, lambda key: key], ids=["lower", "upper", "title", "as-is"]
)
def test_a_recipe_is_right_in_any_case_of_its_keys(recipe_of, case):
    """The service takes any; a schema does not, so the keys are lowered before it looks."""
    assert faults(_cased(recipe_of(), case)) == []


def test_names_that_are_the_users_own_keep_their_case(recipe_of):
    recipe = {**recipe_of(), "ComponentDependencies": {"aws.greengrass.Cli": {"VersionRequirement": ">=2"}}}
    recipe["Manifests"][0]["Lifecycle"]["Setenv"] = {"PYTHONPATH": "x"}
    found = lowered(recipe)
    assert found["componentconfiguration"]["defaultconfiguration"] == {"revision": "v1.0.0", "Port": 1}
    assert list(found["componentdependencies"]) == ["aws.greengrass.Cli"]
    assert found["manifests"][0]["lifecycle"]["setenv"] == {"PYTHONPATH": "x"}
    assert faults(recipe) == []


def _without(name):
    return lambda recipe: recipe.pop(name)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_without("ComponentVersion"), "recipe: 'componentversion' is a required property"),
        (_without("Manifests"), "recipe: 'manifests' is a required property"),
        (lambda recipe: recipe.update(RecipeFormatVersion="2021"), "recipeformatversion: '2021' is not one of"),
        (lambda recipe: recipe.update(ComponentName="no spaces"), "componentname: 'no spaces' does not match"),
        (lambda recipe: recipe.update(ComponentVersion="1.0"), "componentversion: '1.0' does not match"),
        (lambda recipe: recipe.update(ComponentVersion="1.1000000.0"), "componentversion: '1.1000000.0' does not match"),
        (lambda recipe: recipe.update(ComponentColour="red"), "recipe: Additional properties are not allowed"),
        (lambda recipe: recipe["Manifests"][0].update(Artifact=[]), "manifests/0: Additional properties are not allowed"),
        (lambda recipe: recipe["Manifests"][0].update(Artifacts=[{"Url": "s3://b/k"}]), "manifests/0/artifacts/0: 'uri' is a required"),
        (lambda recipe: recipe["Manifests"][0].update(Artifacts=[{"Uri": "s3://b/k", "Unarchive": "TAR"}]), "unarchive: 'TAR' does not match"),
    ],
    ids=["version", "manifests", "format", "name", "semver", "digits", "unknown", "misspelt", "uri", "tar"],
)  # fmt: skip
def test_one_thing_wrong_is_told(recipe_of, change, said):
    recipe = recipe_of()
    change(recipe)
    assert any(said in found for found in faults(recipe)), faults(recipe)
