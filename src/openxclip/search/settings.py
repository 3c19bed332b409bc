"""Settings of an index, stored next to its table: searches and updates must use the same."""

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Self

from openxclip.errors import InputError, OpenXCLIPError
from openxclip.files import atomic_write
from openxclip.inference.engine import Engine
from openxclip.search.embedding import num_context
from openxclip.tagging.identity import model_id
from openxclip.tagging.sources import file_system

META = "index.json"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of an index."""

    model: str
    """The model as given to load; an absolute path for a local model."""
    model_id: str
    num_frames: int
    embed_dim: int
    num_context: int
    """Size of each window's context for prompts; 0 if it is not stored."""
    windows: str | None
    stride: str | None
    dtype: str = field(default="auto", compare=False)
    """Precision of the model's weights; other rounding gives other weights."""
    version: int = 1

    @classmethod
    def of(
        cls, engine: Engine, model_name: str, *, windows: str | None, stride: str | None, keep_context: bool
    ) -> Self:
        """The settings of a new index."""
        name = lasting_name(model_name)
        config = engine.model.config
        return cls(
            model=name,
            model_id=model_id(name, engine.model),
            num_frames=config.num_frames,
            embed_dim=config.embed_dim,
            num_context=num_context(engine) if keep_context else 0,
            windows=windows,
            stride=stride,
            dtype=dtype_of(engine),
        )

    def check_model(self, engine: Engine, address: str) -> None:
        """Refuse a model other than the index's.

        Raises:
            InputError: its weights, number of frames or precision differ.
        """
        if not is_same_model(model_id(self.model, engine.model), self.model_id):
            raise InputError(
                f"{address} was created with {self.model_id} of {self.num_frames} frames in {self.dtype}; the given "
                f"model is {model_id(self.model, engine.model)} of {engine.model.config.num_frames} frames in "
                f"{dtype_of(engine)}. Load that model, or create the index again"
            )

    def check_same(self, wanted: "Settings", address: str) -> None:
        """Refuse to continue with other settings. The model may have moved.

        Raises:
            InputError: they differ.
        """
        if is_same_model(self.model_id, wanted.model_id):
            wanted = replace(wanted, model=self.model, model_id=self.model_id)
        if self == wanted:
            return
        before, now = asdict(self), asdict(wanted)
        difference = "; ".join(
            f"with {name} {before[name]!r}, now it is {now[name]!r}"
            for name in now
            if before[name] != now[name]
        )
        raise InputError(
            f"{address} was created {difference}. Use the same settings, or create another index"
        )


def read_settings(address: str) -> Settings | None:
    """The settings of an index; None if there is no index.

    Raises:
        InputError: the file next to it does not hold settings.
        OpenXCLIPError: the store of the index cannot be reached.
    """
    path = f"{address.rstrip('/')}/{META}"
    try:
        system, name = file_system(path)
        system.invalidate_cache()
        if not system.exists(name):
            return None
        data = system.cat_file(name)
    except ImportError as error:
        raise InputError(f"{address}: {error}") from error
    except Exception as error:  # each store has its own errors
        raise unreachable(path, error) from error
    try:
        return Settings(**json.loads(data))
    except (ValueError, TypeError) as error:
        raise InputError(
            f"{path} does not hold settings of an index ({error}); create the index again"
        ) from error


def write_settings(address: str, settings: Settings) -> None:
    """Write the settings next to the table.

    Raises:
        OpenXCLIPError: they cannot be written.
    """
    path = f"{address.rstrip('/')}/{META}"
    text = json.dumps(asdict(settings), indent=1) + "\n"
    try:
        system, name = file_system(path)
        if "file" in system.protocol:
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(Path(name)) as temporary:
                temporary.write_text(text, encoding="utf-8")
        else:
            system.pipe_file(name, text.encode())
    except Exception as error:  # each store has its own errors
        raise unreachable(path, error) from error


def unreachable(address: str, error: Exception) -> OpenXCLIPError:
    """An error of a store or a table as one line."""
    reason = " ".join(str(error).split())[:300]
    return OpenXCLIPError(
        f"{address} cannot be read or written ({type(error).__name__}: {reason}); check the address and its disk, and "
        "create the index again if it is damaged"
    )


def lasting_name(model_name: str) -> str:
    """A model's name that is valid in every folder."""
    path = Path(model_name).expanduser()
    return str(path.absolute()) if path.exists() else model_name


def is_same_model(one: str, other: str) -> bool:
    """Whether two model ids stand for the same weights and configuration, under any name."""
    return one.rpartition("@")[2] == other.rpartition("@")[2]


def dtype_of(engine: Engine) -> str:
    """The dtype of the weights, as named in options."""
    return str(engine.model.logit_scale.dtype).removeprefix("torch.")
