"""A model to a model hub and back: the one-file model and its card; nothing is sent or fetched unless named."""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from reinception import __version__
from reinception.errors import ReinceptionError, UsageError, first_line
from reinception.files import new_file, refuse_existing
from reinception.model.artifact import MODEL_NAME, Manifest, load, resolve
from reinception.report.card import CARD_NAME, card
from reinception.report.read_run import read_run

_README = "README.md"


def push(model: str | Path, repository: str, *, private: bool = False, replace: bool = False) -> str:
    """Sends a model file, or a run's best weights, with a model card to the repository `OWNER/NAME` of a hub.

    The hub is Hugging Face's, or that of the environment variable HF_ENDPOINT; the token is HF_TOKEN's or that of
    `hf auth login`. The repository is made where it is not there.

    Args:
        model: a model file or a run folder, which is loaded first, so that a damaged one is not sent.
        repository: OWNER/NAME.
        private: a new repository can be seen by its owner only.
        replace: whether a model that the repository holds already may get a newer revision.

    Returns:
        The address of the new revision.

    Raises:
        ReinceptionError: no such model, no network, no right to write, or a model is there and `replace` is not given.
        UsageError: a name that is not OWNER/NAME.
    """
    _require_name(repository)
    file = resolve(model)
    manifest = load(file).manifest
    written = _card_of(Path(model), manifest)
    with _hub(repository) as hub:
        api = hub.HfApi()
        if not replace and api.repo_exists(repository) and api.file_exists(repository, MODEL_NAME):
            raise ReinceptionError(f"{repository}: holds a {MODEL_NAME} already: --replace sends a newer revision")
        api.create_repo(repository, private=private, exist_ok=True)
        done = api.create_commit(
            repository,
            [
                hub.CommitOperationAdd(MODEL_NAME, str(file)),
                hub.CommitOperationAdd(_README, written.encode()),
            ],
            commit_message=f"{manifest.arch.name}, by reinception {__version__}",
        )
        return str(done.commit_url)


def pull(repository: str, path: str | Path, *, revision: str | None = None) -> str:
    """Fetches the model of a hub's repository into the new file `path`, which appears when it has been loaded.

    Args:
        repository: OWNER/NAME.
        path: the `.safetensors` file to write, never over another.
        revision: a branch, tag or commit; None for the newest.

    Returns:
        The commit that was fetched, for the record.

    Raises:
        ReinceptionError: no such repository, file or revision, no network, or what is there is no model of ours.
        UsageError: a name that is not OWNER/NAME.
    """
    _require_name(repository)
    refuse_existing(Path(path))
    with _hub(repository) as hub, tempfile.TemporaryDirectory(dir=Path(path).absolute().parent) as folder:
        commit = hub.HfApi().model_info(repository, revision=revision).sha  # first: it fails at once without a network
        found = Path(hub.hf_hub_download(repository, MODEL_NAME, revision=commit, local_dir=folder))
        try:
            load(found)
        except ReinceptionError as error:
            reason = str(error).removeprefix(f"{found}: ")
            raise ReinceptionError(f"{repository}: its {MODEL_NAME} cannot be used: {reason}") from None
        with new_file(path) as part:
            part.write_bytes(found.read_bytes())
    return str(commit)


def _require_name(repository: str) -> None:
    owner, slash, name = repository.partition("/")
    if not (owner and slash and name) or "/" in name or ":" in repository:
        raise UsageError(f"{repository}: a repository is OWNER/NAME")


@contextmanager
def _hub(repository: str) -> Iterator[Any]:
    """huggingface_hub; what goes wrong with it is one line."""
    try:
        import huggingface_hub

        errors: Any = importlib.import_module("huggingface_hub.errors")
    except ModuleNotFoundError:
        raise ReinceptionError("push and pull need huggingface_hub: pip install 'reinception[hub]'") from None
    try:
        yield huggingface_hub
    except errors.LocalEntryNotFoundError as error:  # what hf_hub_download makes of a network that is not there
        raise ReinceptionError(f"{repository}: the hub cannot be reached: {first_line(error)}") from None
    except errors.RepositoryNotFoundError:
        raise ReinceptionError(f"{repository}: there is no such repository, or your token may not see it") from None
    except errors.RevisionNotFoundError:
        raise ReinceptionError(f"{repository}: has no such revision") from None
    except errors.EntryNotFoundError:
        raise ReinceptionError(f"{repository}: holds no {MODEL_NAME}: it is not a model that push sent") from None
    except errors.HfHubHTTPError as error:
        status = getattr(error.response, "status_code", None)
        what = "your token may not do that: see hf auth login" if status in (401, 403) else first_line(error)
        raise ReinceptionError(f"{repository}: the hub refuses ({status}): {what}") from None
    except errors.HFValidationError as error:
        raise UsageError(f"{repository}: {first_line(error)}") from None
    except (OSError, errors.HTTPError) as error:
        raise ReinceptionError(f"{repository}: the hub cannot be reached: {first_line(error)}") from None


def _card_of(model: Path, manifest: Manifest) -> str:
    """The card of a run, as it stands in its folder; for a lone file what its manifest says."""
    if (model / CARD_NAME).is_file():
        return (model / CARD_NAME).read_text(encoding="utf-8")
    if model.is_dir():
        return card(read_run(model))
    return manifest_card(manifest)


def manifest_card(manifest: Manifest) -> str:
    """A model card of what a model file says about itself."""
    name, size = manifest.arch.name, manifest.preprocessing.input_size
    licence = manifest.origin.get("licence")
    lines = [
        "---",
        "library_name: reinception",
        "pipeline_tag: image-classification",
        "tags:",
        "- image-classification",
    ]
    classes = "".join(f"- {' '.join(one.splitlines())}\n" for one in manifest.classes[:50])
    more = f"- and {len(manifest.classes) - 50} more\n" if len(manifest.classes) > 50 else ""
    told = f"Licence of the weights: {licence}.\n\n" if licence else ""
    return (
        "\n".join([*lines, f"- {name}", "---"])
        + f"\n\n# {name}\n\n{name} for {len(manifest.classes)} classes and images of {size} x {size} pixels.\n\n{told}"
        + f"## Classes\n\n{classes}{more}\n## Use\n\n```sh\nreinception predict {MODEL_NAME} IMAGE...\n```\n\n"
        + "The file holds the weights, the classes and the preprocessing; nothing in it is executed.\n"
    )
