"""Your payload's type. This is the one class to change for data of your own."""

from tables.model import AnyObject


class Payload(AnyObject):
    """What a record carries: here any JSON object.

    To have Oncestream check your data, replace the class by a pydantic model of your own::

        from decimal import Decimal

        from tables.model import Model


        class Payload(Model):
            order_id: int
            customer: str
            amount: Decimal

    A record that does not fit is rejected with the reason, and its bytes are kept. So is one with a field that the
    model does not name, unless the model says otherwise (``class Payload(Model, extra="ignore")``).

    The model judges and changes nothing: what is stored is the JSON that was sent, with every digit. Defaults are not
    filled in, and values are not converted.
    """
