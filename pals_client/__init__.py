"""The Python client of the service: `Client("http://127.0.0.1:8000")`."""

from pals_client.client import Client as Client
from pals_client.errors import ApiError as ApiError
from pals_client.errors import ClientError as ClientError
from pals_client.errors import DatasetInvalid as DatasetInvalid
from pals_client.errors import DownloadCorrupted as DownloadCorrupted
from pals_client.errors import ServiceUnreachable as ServiceUnreachable
from pals_client.resources import FINAL_STATUSES as FINAL_STATUSES
from pals_client.resources import Checkpoint as Checkpoint
from pals_client.resources import Dataset as Dataset
from pals_client.resources import Evaluation as Evaluation
from pals_client.resources import Event as Event
from pals_client.resources import Forecast as Forecast
from pals_client.resources import Job as Job
from pals_client.resources import Layers as Layers
from pals_client.resources import MetricSeries as MetricSeries
from pals_client.retries import Retries as Retries
