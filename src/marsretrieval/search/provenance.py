"""Provenance of exported files: the request, the model and the data that a file was made from.

GeoJSON, GeoParquet, GeoPackage, GeoTIFF and maps hold the record themselves. Readers of CSV,
Shapefile and FlatGeobuf have no place for it, so that it lies beside the file, in `NAME.json`.
"""

from __future__ import annotations

import datetime
import json
import re
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from marsretrieval import __version__
from marsretrieval.errors import DataError, MissingDependencyError
from marsretrieval.io import from_json, parse_json, read_json, sha256_file, sha256_json, write_json
from marsretrieval.search.query import prompts_of
from marsretrieval.text import missing_file, pluralize

if TYPE_CHECKING:
    from marsretrieval.embeddings import EmbeddingStore

KEY = "marsretrieval"  # of the record in the metadata of a file
SIDECARS = (".csv", ".shp", ".shp.zip", ".fgb")
METADATA_URI = "https://json.org/"  # gpkg_metadata.md_standard_uri of the record
HTML_ID = "marsretrieval-provenance"  # of a <script type="application/json"> element

# GeoPackage 1.3, annex F.8 (metadata extension).
_GPKG_TABLES = (
    "CREATE TABLE gpkg_metadata (id INTEGER CONSTRAINT m_pk PRIMARY KEY ASC NOT NULL, "
    "md_scope TEXT NOT NULL DEFAULT 'dataset', md_standard_uri TEXT NOT NULL, "
    "mime_type TEXT NOT NULL DEFAULT 'text/xml', metadata TEXT NOT NULL DEFAULT '')",
    "CREATE TABLE gpkg_metadata_reference (reference_scope TEXT NOT NULL, table_name TEXT, "
    "column_name TEXT, row_id_value INTEGER, timestamp DATETIME NOT NULL DEFAULT "
    "(strftime('%Y-%m-%dT%H:%M:%fZ','now')), md_file_id INTEGER NOT NULL, md_parent_id INTEGER, "
    "CONSTRAINT crmr_mfi_fk FOREIGN KEY (md_file_id) REFERENCES gpkg_metadata(id), "
    "CONSTRAINT crmr_mpi_fk FOREIGN KEY (md_parent_id) REFERENCES gpkg_metadata(id))",
    "CREATE TABLE IF NOT EXISTS gpkg_extensions (table_name TEXT, column_name TEXT, "
    "extension_name TEXT NOT NULL, definition TEXT NOT NULL, scope TEXT NOT NULL, "
    "CONSTRAINT ge_tce UNIQUE (table_name, column_name, extension_name))",
    "INSERT INTO gpkg_extensions VALUES ('gpkg_metadata', NULL, 'gpkg_metadata', "
    "'http://www.geopackage.org/spec120/#extension_metadata', 'read-write'), "
    "('gpkg_metadata_reference', NULL, 'gpkg_metadata', "
    "'http://www.geopackage.org/spec120/#extension_metadata', 'read-write')",
)

_REMEDY = "Use a file that `marsretrieval search` wrote, with -o or --heatmap."


@dataclass(frozen=True, slots=True)
class FileReference:
    """A file that a request reads.

    Attributes:
        path: Absolute path; a name if the data came from memory.
        sha256: SHA-256 of the file; None if the data came from memory.
    """

    path: str
    sha256: str | None = None

    @classmethod
    def from_value(cls, value: Any, name: str) -> FileReference:
        """Describe an image or region of a request.

        Args:
            value: A path, or an object in memory.
            name: Name of an object in memory.

        Returns:
            The reference.
        """
        if not isinstance(value, str | Path):
            return cls(name)
        return cls(str(Path(value).absolute()), sha256_file(Path(value)))

    def check(self, source: Path, kind: str) -> str:
        """Check that the file still has the recorded content.

        Args:
            source: File with the provenance, for messages.
            kind: Noun for messages, such as `example image`.

        Returns:
            The path.

        Raises:
            DataError: If the file is missing or changed, or the data came from memory.
        """
        if self.sha256 is None:
            raise DataError(
                f"{source}: the {kind} '{self.path}' was given in Python, not as a file",
                remedy=f"Save the {kind} as a file, and give all of them as options.",
            )
        path = Path(self.path)
        if not path.is_file():
            raise DataError(
                f"{self.path}: no such file ({kind} of {source})",
                remedy=f"Restore it, or give the {kind}s as options.",
            )
        actual = sha256_file(path)
        if actual != self.sha256:
            raise DataError(
                f"{self.path}: changed since {source} was made (sha256 {self.sha256[:12]} then, "
                f"{actual[:12]} now)",
                remedy=f"Restore it, or give the {kind}s as options.",
            )
        return self.path


@dataclass(frozen=True, slots=True)
class SearchRequest:
    """All settings of a search that affect its hits, as plain JSON.

    Attributes:
        stores: Absolute paths of the stores.
        text: Texts.
        images: Example images.
        similar_to: Ids of example tiles.
        negative_text: Negative texts.
        negative_images: Negative images.
        negative_tiles: Ids of negative tiles.
        use_templates: Whether texts go through the prompt templates.
        image_weight: Weight of the example images in a text+image query.
        negative_weight: Weight of the negative examples.
        bbox: Box as `W,S,E,N`.
        region: Vector file of polygons.
        region_layer: Its layer.
        k: Number of hits; None for all that reach `min_score`.
        min_score: Minimum cosine.
        min_valid: Minimum share of data.
        lon: Longitude range, 180 or 360.
        keep_examples: Whether example tiles can be hits.
        merge_deg: Distance within which hits are merged.
        vector: Query vector instead of the other parts.
    """

    stores: tuple[str, ...]
    text: tuple[str, ...] = ()
    images: tuple[FileReference, ...] = ()
    similar_to: tuple[str, ...] = ()
    negative_text: tuple[str, ...] = ()
    negative_images: tuple[FileReference, ...] = ()
    negative_tiles: tuple[str, ...] = ()
    use_templates: bool = True
    image_weight: float = 0.3
    negative_weight: float = 0.25
    bbox: str | None = None
    region: FileReference | None = None
    region_layer: str | None = None
    k: int | None = None
    min_score: float | None = None
    min_valid: float | None = None
    lon: int = 180
    keep_examples: bool = False
    merge_deg: float | None = None
    vector: FileReference | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the request as a JSON object."""
        return asdict(self)


def provenance(about: Mapping[str, Any], store: EmbeddingStore | None = None) -> dict[str, Any]:
    """Describe how a result was made.

    Args:
        about: Description of the search, as in `Hits.about`; may already be a provenance record.
        store: The searched store; adds its hashes and number of images.

    Returns:
        `about` as a JSON object, with `generator`, `version`, `date` (UTC), `query` (one line),
        `prompts`, `request` (see `SearchRequest`), and of the store `rows`, `set_hash` (hash of its
        images) and `weights_hash` (hash of the encoder's fingerprint).
    """
    record = dict(about)
    now = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    record |= {"generator": "marsretrieval", "version": __version__}
    record["date"] = about.get("date") or now.isoformat().replace("+00:00", "Z")
    record["query"] = describe_query(about)
    texts = [*(about.get("texts") or ()), *(about.get("not_text") or ())]
    raw = bool(about.get("raw"))
    record["prompts"] = [prompt for text in texts for prompt in prompts_of(text, raw=raw)]
    if "request" in about and about.get("merge_deg") is not None:
        record["request"] = {**about["request"], "merge_deg": about["merge_deg"]}
    if store is not None:
        record |= {
            "rows": store.rows,
            "set_hash": store.set_hash,
            "weights_hash": weights_hash(store),
        }
    return record


def weights_hash(store: EmbeddingStore) -> str:
    """Return the hash of the fingerprint of a store's encoder.

    Args:
        store: The store.

    Returns:
        SHA-256 of its canonical JSON.
    """
    return sha256_json(store.encoder)


def describe_query(about: Mapping[str, Any]) -> str:
    """Describe the query in one line.

    Args:
        about: Description of the search.

    Returns:
        Texts, examples and negative parts.
    """
    texts = [*(about.get("texts") or ([about["text"]] if about.get("text") else []))]
    images, tiles = len(about.get("images") or ()), len(about.get("like") or ())
    texts += [pluralize(images, "example image")] if images else []
    texts += [f"like {about['like'][0]}" if tiles == 1 else f"like {tiles} tiles"] if tiles else []
    against = [*(about.get("not_text") or ())]
    images, tiles = len(about.get("not_images") or ()), len(about.get("not_like") or ())
    against += [pluralize(images, "image")] if images else []
    against += [pluralize(tiles, "tile")] if tiles else []
    texts += [f"vector {Path(about['vector']).name}"] if about.get("vector") else []
    line = ", ".join(texts) or "Search"
    return line + (f", not {', '.join(against)}" if against else "")


def to_text(about: Mapping[str, Any]) -> str:
    """Return the provenance as JSON text in ASCII, for the metadata of a file.

    Args:
        about: Description of the search.

    Returns:
        JSON on one line.
    """
    return json.dumps(provenance(about))


def picture_metadata(about: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """Return the metadata of a figure for `matplotlib.figure.Figure.savefig`.

    Args:
        about: Description of the search.
        kind: png (text chunks), svg (Dublin Core) or pdf (information dictionary).

    Returns:
        Title, software, and the record: as `marsretrieval`, `Description` or `Keywords`.
    """
    record = provenance(about)
    text = json.dumps(record)
    software = f"marsretrieval {record['version']}"
    if kind == "png":
        return {"Title": record["query"], "Software": software, KEY: text}
    if kind == "svg":
        return {"Title": record["query"], "Creator": software, "Description": text}
    return {"Title": record["query"], "Creator": software, "Keywords": text}


def sidecar_path(path: Path) -> Path | None:
    """Return the file beside an exported file that holds its provenance.

    Args:
        path: The exported file.

    Returns:
        `NAME.json`; None if the format holds the record itself.
    """
    is_sidecar = path.name.lower().endswith(SIDECARS)
    return path.with_name(f"{path.name}.json") if is_sidecar else None


def write_sidecar(about: Mapping[str, Any], path: Path) -> Path | None:
    """Write the provenance of a CSV, Shapefile or FlatGeobuf file beside it.

    Args:
        about: Description of the search.
        path: The exported file.

    Returns:
        The file written; None if the format holds the record itself.

    Raises:
        OutputError: If the file cannot be written.
    """
    sidecar = sidecar_path(path)
    if sidecar is not None:
        write_json(sidecar, provenance(about))
    return sidecar


def write_gpkg_metadata(path: Path, about: Mapping[str, Any]) -> None:
    """Add the provenance to the table `gpkg_metadata` of a GeoPackage, as a row of JSON.

    Not as metadata items of GDAL, which writes them once more, beside the file, on every reading.

    Args:
        path: A GeoPackage; without the tables of the metadata extension, they are created.
        about: Description of the search.
    """
    with closing(sqlite3.connect(path)) as file, file:
        if not file.execute("SELECT 1 FROM sqlite_master WHERE name = 'gpkg_metadata'").fetchone():
            for statement in _GPKG_TABLES:
                file.execute(statement)
        file.execute(
            "INSERT INTO gpkg_metadata (md_scope, md_standard_uri, mime_type, metadata) "
            "VALUES ('dataset', ?, 'application/json', ?)",
            (METADATA_URI, json.dumps({KEY: provenance(about)}, ensure_ascii=False)),
        )
        (number,) = file.execute("SELECT max(id) FROM gpkg_metadata").fetchone()
        file.execute(
            "INSERT INTO gpkg_metadata_reference (reference_scope, md_file_id) "
            "VALUES ('geopackage', ?)",
            (number,),
        )


def read_provenance(path: str | Path) -> dict[str, Any]:
    """Read the provenance of an exported file.

    Args:
        path: A .csv, .shp, .shp.zip or .fgb (with its .json), .geojson, .json, .parquet, .gpkg,
            .tif, .png, .svg, .pdf or .html file.

    Returns:
        The record; see `provenance`.

    Raises:
        DataError: If the file is missing, or has no such record.
        MissingDependencyError: If a .tif is read without rasterio.
    """
    path = Path(path)
    sidecar = sidecar_path(path)
    if not path.is_file():
        raise DataError(f"{path}: {missing_file(path)}", remedy=_REMEDY)
    if sidecar is not None and not sidecar.is_file():
        raise DataError(
            f"{path}: no record of its search, which would be in {sidecar.name}",
            remedy=f"Put {sidecar.name} beside it, or use another file of the same search.",
        )
    name = path.name.lower()
    if sidecar is not None:
        record = read_json(sidecar)
    elif name.endswith((".geojson", ".json")):
        value = read_json(path, limit=2**31)
        record = value.get(KEY, value) if isinstance(value, dict) else None
    else:
        suffix = path.suffix.lower()
        if suffix not in _READERS:
            raise DataError(f"{path}: no format that holds the record of a search", remedy=_REMEDY)
        try:
            text = _READERS[suffix](path)
        except MissingDependencyError:
            raise
        except Exception as error:  # Pillow, pyarrow, rasterio and sqlite3 raise many types
            raise DataError(f"{path}: cannot be read ({error})", remedy=_REMEDY) from error
        record = None if text is None else parse_json(text, source=path)
    if not isinstance(record, dict) or record.get("generator") != "marsretrieval":
        raise DataError(f"{path}: no record of a search in it", remedy=_REMEDY)
    return record


def read_request(record: Mapping[str, Any], source: Path) -> SearchRequest:
    """Return the request of a provenance record.

    Args:
        record: The record.
        source: File that it comes from, for messages.

    Returns:
        The validated request.

    Raises:
        DataError: If the record has no request, or an invalid one.
    """
    value = record.get("request")
    if value is None:
        raise DataError(f"{source}: its record has no request", remedy=_REMEDY)
    return from_json(SearchRequest, value, source=source, remedy=_REMEDY)


def compare_store(record: Mapping[str, Any], store: EmbeddingStore) -> list[dict[str, Any]]:
    """Compare a store with the one that a result was made from.

    Args:
        record: Provenance of the result.
        store: The present store.

    Returns:
        One object per difference: `what` (`model`, `weights_hash`, `rows`, `set_hash`), `then`,
        `now`.
    """
    present = {
        "model": str(store.encoder.get("id")),
        "weights_hash": weights_hash(store),
        "rows": store.rows,
        "set_hash": store.set_hash,
    }
    return [
        {"what": name, "then": record[name], "now": value}
        for name, value in present.items()
        if record.get(name) is not None and record[name] != value
    ]


def describe_differences(differences: Sequence[Mapping[str, Any]]) -> list[str]:
    """Describe the result of `compare_store` in one line per difference.

    Args:
        differences: The differences.

    Returns:
        Lines; hashes are shortened.
    """
    nouns = {"weights_hash": "weights hash", "set_hash": "hash of the images", "rows": "images"}

    def short(value: Any) -> str:
        return f"{value:,}" if isinstance(value, int) else str(value)[:24]

    return [
        f"{nouns.get(item['what'], item['what'])}: {short(item['then'])} then, "
        f"{short(item['now'])} now"
        for item in differences
    ]


def _read_parquet(path: Path) -> str | None:
    import pyarrow.parquet as pq

    text = (pq.read_schema(path).metadata or {}).get(KEY.encode())
    return None if text is None else text.decode()


def _read_gpkg(path: Path) -> str | None:
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as file:
        rows = file.execute("SELECT metadata FROM gpkg_metadata WHERE mime_type LIKE '%json'")
        for (text,) in rows:
            value = parse_json(text, source=path)
            if isinstance(value, dict) and KEY in value:
                return json.dumps(value[KEY])
    return None


def _read_geotiff(path: Path) -> str | None:
    try:
        import rasterio
    except ImportError as error:
        raise MissingDependencyError("rasterio", "geotiff", needed_for="a GeoTIFF") from error
    with rasterio.open(path) as file:
        text: str | None = file.tags().get(KEY.upper())
    return text


def _read_png(path: Path) -> str | None:
    from PIL import Image

    with Image.open(path) as image:
        image.load()  # text chunks may follow the pixels
        text: str | None = getattr(image, "text", {}).get(KEY)
    return text


def _read_svg(path: Path) -> str | None:
    from xml.etree import ElementTree

    for _, element in ElementTree.iterparse(path):
        if element.tag == "{http://purl.org/dc/elements/1.1/}description":
            return element.text
    return None


def _read_pdf(path: Path) -> str | None:
    """Read /Keywords of the information dictionary, a literal string (ISO 32000-1, 7.3.4.2)."""
    match = re.search(rb"/Keywords\s*\(((?:[^\\()]|\\.)*)\)", path.read_bytes(), re.DOTALL)
    if match is None:
        return None
    escapes = {b"n": b"\n", b"r": b"\r", b"t": b"\t"}
    text = re.sub(rb"\\(.)", lambda m: escapes.get(m[1], m[1]), match[1], flags=re.DOTALL)
    return text.decode("latin-1")


def _read_html(path: Path) -> str | None:
    pattern = rf'<script[^>]*\bid="{HTML_ID}"[^>]*>(.*?)</script>'
    match = re.search(pattern, path.read_text(encoding="utf-8"), re.DOTALL)
    return None if match is None else match[1]


_READERS = {
    ".parquet": _read_parquet,
    ".gpkg": _read_gpkg,
    ".tif": _read_geotiff,
    ".tiff": _read_geotiff,
    ".png": _read_png,
    ".svg": _read_svg,
    ".pdf": _read_pdf,
    ".html": _read_html,
}
