"""The dataparser that nerfstudio finds. Apart from the method: nerfstudio looks for dataparsers while it is still being
imported itself (by its datamanagers), so this module may import dataparsers and nothing else of nerfstudio.
"""

from __future__ import annotations

from nerfstudio.plugins.registry_dataparser import DataParserSpecification

from closeup_ns.data.dataparser import CloseupDataParserConfig

closeup_data = DataParserSpecification(
    config=CloseupDataParserConfig(),
    description="LLFF, nerfstudio transforms.json or COLMAP folders, whichever is there.",
)
