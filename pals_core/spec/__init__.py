"""The training spec: what to forecast, with which model, sparsified how, trained how.

One source for the library, the worker, the HTTP API and the documentation: each field carries its
default, its range and a sentence. A field whose default depends on the data is None here and is
filled by `pals_core.feasibility.resolve`.
"""

from pals_core.spec.data import Aggregation as Aggregation
from pals_core.spec.data import DataSpec as DataSpec
from pals_core.spec.data import MissingPolicy as MissingPolicy
from pals_core.spec.data import Resample as Resample
from pals_core.spec.data import SeriesMode as SeriesMode
from pals_core.spec.data import Split as Split
from pals_core.spec.frozen import FrozenSpec as FrozenSpec
from pals_core.spec.methods import METHOD_SPECS as METHOD_SPECS
from pals_core.spec.methods import Allocation as Allocation
from pals_core.spec.methods import DenseMethodSpec as DenseMethodSpec
from pals_core.spec.methods import GmpMethodSpec as GmpMethodSpec
from pals_core.spec.methods import GranetMethodSpec as GranetMethodSpec
from pals_core.spec.methods import Growth as Growth
from pals_core.spec.methods import MethodSpec as MethodSpec
from pals_core.spec.methods import PalsMethodSpec as PalsMethodSpec
from pals_core.spec.methods import PruneAllocation as PruneAllocation
from pals_core.spec.methods import RiglMethodSpec as RiglMethodSpec
from pals_core.spec.methods import SetMethodSpec as SetMethodSpec
from pals_core.spec.methods import StaticMethodSpec as StaticMethodSpec
from pals_core.spec.methods import TargetMethodSpec as TargetMethodSpec
from pals_core.spec.methods import UpdatingMethodSpec as UpdatingMethodSpec
from pals_core.spec.models import MODEL_SPECS as MODEL_SPECS
from pals_core.spec.models import AutoformerSpec as AutoformerSpec
from pals_core.spec.models import DLinearSpec as DLinearSpec
from pals_core.spec.models import EncoderSpec as EncoderSpec
from pals_core.spec.models import FEDformerSpec as FEDformerSpec
from pals_core.spec.models import ForecasterSpec as ForecasterSpec
from pals_core.spec.models import InformerSpec as InformerSpec
from pals_core.spec.models import ITransformerSpec as ITransformerSpec
from pals_core.spec.models import ModelSpec as ModelSpec
from pals_core.spec.models import ModeSelect as ModeSelect
from pals_core.spec.models import NLinearSpec as NLinearSpec
from pals_core.spec.models import NSTransformerSpec as NSTransformerSpec
from pals_core.spec.models import PatchTSTSpec as PatchTSTSpec
from pals_core.spec.models import TransformerSpec as TransformerSpec
from pals_core.spec.training import Compilation as Compilation
from pals_core.spec.training import DeviceChoice as DeviceChoice
from pals_core.spec.training import LearningRateSchedule as LearningRateSchedule
from pals_core.spec.training import Optimizer as Optimizer
from pals_core.spec.training import Precision as Precision
from pals_core.spec.training import TrainingSpec as TrainingSpec
from pals_core.spec.whole import Spec as Spec
