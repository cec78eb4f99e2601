"""The Model handle: a packaged, immutable model version on this machine."""

from __future__ import annotations

from collections.abc import Collection
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from modeldeploy.errors import ConfigurationError

if TYPE_CHECKING:
    from modeldeploy.convert.report import ParityReport
    from modeldeploy.packaging.bundle import Bundle
    from modeldeploy.packaging.store import Store
    from modeldeploy.values.model import ModelVersion, Signature
    from modeldeploy.values.tolerance import ToleranceLike


class Model:
    """A fitted model, packaged: its files, its signature and its golden examples under one digest.

    Making one packages the estimator into the store on this machine; the same estimator, version and example again is the same model, and
    another estimator under the same version is a ConflictError.

        v1 = Model(clf, name="iris", version="1.0.0", example=X.head())
    """

    def __init__(
        self,
        estimator: object,
        *,
        name: str,
        version: str,
        example: object,
        method: str | None = None,
        nullable: Collection[str] = (),
        requirements: Collection[str] = (),
        home: str | Path | None = None,
    ) -> None:
        from modeldeploy.packaging.package import package

        self._store = _store(home)
        self._estimator: object = estimator
        self._bundle = package(
            estimator,
            name=name,
            version=version,
            example=example,
            store=self._store,
            method=method,
            nullable=nullable,
            requires=requirements,
        )

    @classmethod
    def from_path(  # noqa: PLR0913 - each is the user's own choice
        cls,
        path: str | Path,
        *,
        name: str | None = None,
        version: str | None = None,
        example: object = None,
        method: str | None = None,
        nullable: Collection[str] = (),
        requirements: Collection[str] = (),
        trust: str | Collection[str] = (),
        home: str | Path | None = None,
    ) -> Self:
        """Package what lies at ``path``: a bundle or its archive, an MLflow model directory, an ONNX, XGBoost, LightGBM or skops file.

        A bundle brings its name, version and example. A pickle is taken only when ``trust`` holds its digest, and is never opened here.
        """
        from modeldeploy.packaging.paths import package_path

        _refuse_url(path)
        store = _store(home)
        bundle = package_path(
            Path(path),
            store=store,
            name=name,
            version=version,
            example=example,
            method=method,
            nullable=nullable,
            requires=requirements,
            trust=trust,
        )
        return cls._of(bundle, store)

    @classmethod
    def get(cls, name: str, version: str, *, home: str | Path | None = None) -> Self:
        """Find a model in the store by version or alias; NotFoundError lists what there is."""
        store = _store(home)
        return cls._of(store.get(name, version), store)

    @classmethod
    def versions(cls, name: str, *, home: str | Path | None = None) -> tuple[str, ...]:
        """Name the versions of a model, oldest first; empty when there is none."""
        return _store(home).versions(name)

    @classmethod
    def _of(cls, bundle: Bundle, store: Store) -> Self:
        model = cls.__new__(cls)
        model._store, model._bundle, model._estimator = store, bundle, None  # noqa: SLF001 - another constructor
        return model

    @property
    def name(self) -> str:
        """The model's name."""
        return self._bundle.manifest.name

    @property
    def version(self) -> str:
        """Its semantic version."""
        return self._bundle.manifest.version

    @property
    def digest(self) -> str:
        """``sha256:`` of its whole content."""
        return self._bundle.digest

    @property
    def uri(self) -> str:
        """Where its bundle lies."""
        return str(self._bundle.path)

    @property
    def flavour(self) -> str:
        """The family of models it belongs to, such as ``sklearn``."""
        return self._bundle.flavour

    @property
    def signature(self) -> Signature:
        """What goes in and what comes out."""
        return self._bundle.manifest.signature

    @property
    def requirements(self) -> tuple[str, ...]:
        """The distributions it needs, pinned."""
        return self._bundle.manifest.requirements

    @property
    def pickled(self) -> bool:
        """Whether it holds code that runs when it is loaded, and so loads only where its digest is trusted."""
        return self._bundle.manifest.pickled

    @property
    def trusted(self) -> bool:
        """Whether this user's own packaging vouched for its digest."""
        return self.digest in self._store.trusted()

    @property
    def bundle(self) -> Bundle:
        """The packaged files."""
        return self._bundle

    @cached_property
    def identity(self) -> ModelVersion:
        """The immutable value by which backends know it."""
        return self._bundle.model_version()

    @property
    def aliases(self) -> tuple[str, ...]:
        """The aliases that mean this version now."""
        return tuple(sorted(key for key, version in self._store.aliases(self.name).items() if version == self.version))

    def alias(self, alias: str) -> Self:
        """Let ``alias`` mean this version from now on, such as ``champion``; it may be moved to another version later."""
        self._store.set_alias(self.name, alias, self.version)
        return self

    def predict(self, data: object) -> Any:
        """Answer in this process, with the estimator that this Model was made from; ConfigurationError for one that was read.

        An array for a model with one output, a dict of arrays for one with several.
        """
        if self._estimator is None:
            message = f"{self!r} was read from its files, and models are loaded only in workers"
            raise ConfigurationError(message, hint="deploy it: Endpoint.deploy(model, name=...).predict(X)")
        from modeldeploy.packaging.package import in_memory
        from modeldeploy.packaging.signature import to_columns

        answers = in_memory(self._estimator, self._bundle).predict(to_columns(data, self.signature))
        return next(iter(answers.values())) if len(answers) == 1 else answers

    def to_onnx(
        self,
        *,
        sample: object,
        version: str | None = None,
        labels: object = None,
        tolerance: ToleranceLike | None = None,
    ) -> Self:
        """Convert it to ONNX, and prove on ``sample`` that the converted model answers as this one does; it is packaged only then.

        ``sample`` is some hundred real rows, with the gaps that real rows have; a copy with more gaps is compared, too. ``labels``, the true
        answers to them, put accuracies into the report; ``tolerance`` is what may differ, such as ``{"float32": (1e-3, 1e-4)}``.
        The result takes and answers what this model does, as version ``1.0.0+onnx`` unless ``version`` says otherwise; ``parity`` is its
        report. Nothing is sent but to the package index, once, where the converter needs a protobuf of its own. Safe to repeat: the
        same conversion again gives the same model. ConversionParityError (with ``.report``) when the models differ, ConversionError when
        no converter knows the model. A warning tells when ONNX is slower.
        """
        from modeldeploy.convert.converting import to_onnx
        from modeldeploy.convert.originals import Original

        original = Original.of(self._estimator, self._bundle)
        bundle = to_onnx(original, self._store, sample=sample, version=version, labels=labels, tolerance=tolerance)
        return self._converted(bundle)

    def quantize(
        self,
        *,
        sample: object = None,
        method: str = "auto",
        version: str | None = None,
        labels: object = None,
        agreement: float = 0.99,
        reduce_range: bool = False,
    ) -> Self:
        """Let an ONNX model compute in 8 bits, a quarter of the size, and prove on ``sample`` that it still answers as before.

        ``method`` is ``dynamic`` (dense layers), ``static`` (convolutions; ``sample`` calibrates it) or ``auto``, which looks at the layers. At
        least ``agreement`` of the rows must be answered the same: the same label or likeliest class, numbers within a tenth of their spread.
        Without ``sample`` the example's rows are compared, which is little. ``reduce_range`` uses 7 of the 8 bits of weights.
        The result is version ``1.0.0+onnx.int8`` unless ``version`` says otherwise. Nothing is sent; safe to repeat. UnsupportedError for trees,
        for which 8 bits do nothing; ConversionParityError (with ``.report``) when too many rows differ. A warning tells when it is slower.
        """
        from modeldeploy.convert.shrinking import Wish, quantize

        wish = Wish(method, agreement, reduce_range)
        return self._converted(quantize(self._bundle, self._store, wish, sample=sample, version=version, labels=labels))

    def _converted(self, bundle: Bundle) -> Self:
        """Give the handle of an ONNX model, which holds no code and so answers in this process, too."""
        from modeldeploy.convert.bundling import ARTIFACT

        model = self._of(bundle, self._store)
        model._estimator = bundle.read(ARTIFACT)  # noqa: SLF001 - another constructor
        return model

    @property
    def parity(self) -> ParityReport | None:
        """How it compared with the model that it was converted from; None when it was not converted here."""
        from modeldeploy.convert.report import read

        return read(self._bundle)

    def archive(self, path: str | Path) -> Path:
        """Write it as one ``.tar.gz`` file, the same bytes every time."""
        return self._bundle.archive(Path(path))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Model) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        short = self.digest.removeprefix("sha256:")[:12]
        return f"<Model {self.name} {self.version} ({self.flavour}, {short})>"

    def _repr_html_(self) -> str:
        from modeldeploy.observe import notebook

        takes, answers = _fields(self.signature.inputs), _fields(self.signature.outputs)
        return notebook.definition(f"Model {self.identity}", [*_facts(self), ("takes", takes), ("answers", answers)])


_SHOWN = 8


def _facts(model: Model) -> list[tuple[str, str]]:
    return [
        ("flavour", f"{model.flavour}, {model.bundle.manifest.method}{', pickled' if model.pickled else ''}"),
        ("digest", model.digest),
        ("requirements", ", ".join(model.requirements)),
    ]


def _fields(fields: Any) -> str:
    shown = [
        f"{field.name}: {field.dtype.value}{list(field.shape) if field.shape else ''}" for field in fields[:_SHOWN]
    ]
    return ", ".join(shown) + (f" and {len(fields) - _SHOWN} more" if len(fields) > _SHOWN else "")


def _refuse_url(path: str | Path) -> None:
    """Nothing is ever fetched: a place that somebody else names could be one that only this machine reaches."""
    if isinstance(path, str) and "://" in path:
        message = f"{path!r} is a URL, and nothing is fetched here"
        raise ConfigurationError(
            message, hint="download it yourself, compare its digest, and pass the path of the file"
        )


def _store(home: str | Path | None) -> Store:
    from modeldeploy import config
    from modeldeploy.packaging.store import Store

    root = Path(home).expanduser().absolute() if home is not None else config.load().home
    return Store(root / "store")
