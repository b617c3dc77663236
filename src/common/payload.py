"""Your payload's type. This is the one class to change for data of your own."""

from pydantic import ConfigDict, JsonValue, RootModel


class Payload(RootModel[dict[str, JsonValue]]):
    """What a record carries: here any JSON object.

    To have Oncestream check your data, replace the class by a model of your own; a record that does not fit it
    is rejected with the reason, and its bytes are kept::

        class Payload(BaseModel):
            order_id: int
            customer: str
            amount: Decimal

    What is stored is the validated payload: defaults are filled in and values are coerced as the model says.
    """

    # Without this a number too large for a double would be stored as null, silently; with it, it is rejected.
    model_config = ConfigDict(ser_json_inf_nan="constants")
