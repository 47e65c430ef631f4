"""The public names of pageowner, written by scripts/facade: __init__.py has them."""

from pageowner.analysis.balance import Balance as Balance
from pageowner.analysis.diff import Difference as Difference
from pageowner.analysis.explain import Explanation as Explanation
from pageowner.analysis.filters import Filter as Filter
from pageowner.analysis.leaks import Leaks as Leaks
from pageowner.analysis.query import Answer as Answer
from pageowner.api.balance import balance as balance
from pageowner.api.diff import diff as diff
from pageowner.api.explain import explain as explain
from pageowner.api.export import export as export
from pageowner.api.flame import FlameGraph as FlameGraph
from pageowner.api.flame import flame as flame
from pageowner.api.fleet import Fleet as Fleet
from pageowner.api.frag import Blocking as Blocking
from pageowner.api.frag import Fragmentation as Fragmentation
from pageowner.api.frag import frag as frag
from pageowner.api.leaks import leaks as leaks
from pageowner.api.map import Map as Map
from pageowner.api.map import map as map
from pageowner.api.owners import Owners as Owners
from pageowner.api.owners import owners as owners
from pageowner.api.query import query as query
from pageowner.api.record import Recorded as Recorded
from pageowner.api.record import record as record
from pageowner.api.serve import serve as serve
from pageowner.api.slabs import Slabs as Slabs
from pageowner.api.slabs import slabs as slabs
from pageowner.api.status import status as status
from pageowner.api.watch import LiveOwners as LiveOwners
from pageowner.api.watch import watch as watch
from pageowner.api.who import Frames as Frames
from pageowner.api.who import who as who
from pageowner.api.who_object import who_object as who_object
from pageowner.errors import PageownerError as PageownerError
from pageowner.errors import UsageError as UsageError
from pageowner.model.snapshot import Metadata as Metadata
from pageowner.model.snapshot import Snapshot as Snapshot
from pageowner.page_owner_sort.sorting import sort as sort
from pageowner.sources.source import Moment as Moment
from pageowner.sources.source import read as read
from pageowner.tracker.control import Options as Options
from pageowner.tracker.control import Status as Status
from pageowner.tracker.control import off as off
from pageowner.tracker.control import on as on
from pageowner.tracker.doctor import Finding as Finding
from pageowner.tracker.doctor import doctor as doctor
from pageowner.tracker.read.capture import capture as capture

__version__: str
__all__: list[str]
