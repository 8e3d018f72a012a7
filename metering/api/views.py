from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

from django.conf import settings
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import status
from rest_framework.exceptions import APIException, NotFound, ParseError
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from metering import collector, intake
from metering.api.authentication import HasScope, MeteringKeyAuthentication, key_of
from metering.api.parsers import EventBatchParser, EventParser, SamplesParser
from metering.api.parsing import Said, read_samples, read_uuid
from metering.api.serializers import (
    CollectedSerializer,
    IntakeSerializer,
    SampleCallSerializer,
    SampleEventSerializer,
)
from metering.lives import SANDBOX_ID
from metering.models import MeteringKey, Sandbox
from metering.source import SourceError
from metering.stream import StreamUnavailableError

RETRY_AFTER_S = 5


class UnavailableError(APIException):
    """Redis or an engine does not answer; the same call is to be made again a little later."""

    status_code = status.HTTP_503_SERVICE_UNAVAILABLE
    default_code = "unavailable"
    # What the answer's Retry-After is made of, in seconds.
    wait = RETRY_AFTER_S


class Samples(APIView):
    """Samples of sandboxes that are not read by us."""

    authentication_classes = (MeteringKeyAuthentication,)
    permission_classes = (HasScope,)
    # A runtime sends as often as its sandboxes are read.
    throttle_classes = ()
    parser_classes = (SamplesParser, EventBatchParser, EventParser)
    scope = MeteringKey.Scope.SAMPLES

    @extend_schema(
        operation_id="metering_samples",
        request={
            SamplesParser.media_type: SampleCallSerializer,
            EventBatchParser.media_type: SampleEventSerializer(many=True),
            EventParser.media_type: SampleEventSerializer,
        },
        responses={
            200: IntakeSerializer,
            422: IntakeSerializer,
        },
    )
    def post(self, request: Request) -> Response:
        """Take 1 to 1,000 samples, of at most 1 MiB. Sending a call again changes nothing.

        A sample that is rejected is named with its field and the way out, and costs the others
        nothing; 422 says that all of them were rejected.
        """
        key, now = key_of(request), datetime.now(UTC)
        call = request.data
        if not isinstance(call, dict) or not call:  # A body of no bytes meets no parser.
            raise ParseError('The body is empty. Send {"samples": [...]}.')
        said = Said(key.account_id, settings.METERING_INTERVAL_S, now)
        samples, rejected = read_samples(call["values"], call["open_value"], said)
        try:
            taken = intake.take_samples(key, samples, rejected=rejected, now=now)
        except StreamUnavailableError as error:
            raise UnavailableError(str(error)) from None
        all_rejected = len(taken.rejected) == len(call["values"])
        return Response(
            IntakeSerializer(taken).data,
            status.HTTP_422_UNPROCESSABLE_ENTITY if all_rejected else status.HTTP_200_OK,
        )


class SandboxCollect(APIView):
    """A reading at once, as before a stop."""

    authentication_classes = (MeteringKeyAuthentication,)
    permission_classes = (HasScope,)
    # A runtime sends as often as its sandboxes are read.
    throttle_classes = ()
    scope = MeteringKey.Scope.COLLECT

    @extend_schema(
        operation_id="metering_sandbox_collect",
        parameters=[
            OpenApiParameter(
                "account_id",
                OpenApiTypes.UUID,
                description="Whose sandbox it is; may be left out when the key is an account's.",
            )
        ],
        request=None,
        responses={
            200: CollectedSerializer,
        },
    )
    def post(self, request: Request, sandbox_id: str) -> Response:
        """Read the sandbox's running lives once more, wherever they run. Safe to repeat."""
        account_id = _account_id(request, key_of(request))
        sandboxes = Sandbox.objects.filter(account_id=account_id, sandbox_id=sandbox_id)
        if not (SANDBOX_ID.fullmatch(sandbox_id) and sandboxes.exists()):
            raise NotFound("The account has no such sandbox.")
        try:
            read = collector.collect_sandbox(account_id, sandbox_id, now=datetime.now(UTC))
        except (SourceError, StreamUnavailableError) as error:
            raise UnavailableError(str(error)) from None
        return Response(CollectedSerializer({"read": read}).data)


def _account_id(request: Request, key: MeteringKey) -> UUID:
    """Return whose sandbox is meant. Raises ParseError, NotFound."""
    given = request.query_params.get("account_id")
    if given is None:
        if key.account_id is None:
            raise ParseError("account_id: Say whose sandbox it is, with ?account_id=.")
        return key.account_id
    account_id = read_uuid(given)
    if account_id is None:
        raise ParseError("account_id: It is no UUID.")
    if key.account_id not in {None, account_id}:
        # Not forbidden: a key need not learn which sandboxes other accounts have.
        raise NotFound("The account has no such sandbox.")
    return account_id
