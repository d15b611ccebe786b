"""Message classes of Protocol Buffers, made at run time from a table of their fields."""

from types import SimpleNamespace

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory


def make(package, table):
    """Message classes in a pool of their own.

    What goes over the wire are numbers and types of fields, not the names of packages. So a client
    can define the few messages that it needs once more, where the package with all of them would
    bring TensorFlow; a pool of their own keeps them apart from TensorFlow's in one process.

    Args:
        package: A name for errors.
        table: From the name of a message to its fields, from name to (number, type). The type is a
            scalar type of Protocol Buffers or another message of the table; `[]` behind it marks a
            repeated field, `{}` a map from strings.

    Returns:
        A namespace with a class for each message.

    Example:

    >>> from experiments.restoration.protobuf import make
    >>> point = make("example", {"Point": {"x": (1, "float[]")}}).Point(x=[1, 2])
    >>> len(point.SerializeToString())
    10
    """
    file = descriptor_pb2.FileDescriptorProto(
        name=f"{package}.proto", package=package, syntax="proto3"
    )
    for name, fields in table.items():
        message = file.message_type.add(name=name)
        for field, (number, kind) in fields.items():
            _add(package, message, field, number, kind)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    found = {name: pool.FindMessageTypeByName(f"{package}.{name}") for name in table}
    return SimpleNamespace(**{k: message_factory.GetMessageClass(v) for k, v in found.items()})


def _add(package, message, name, number, kind):
    """Adds a field; a map is a repeated message of a key and a value."""
    field = message.field.add(name=name, number=number)
    field.label = field.LABEL_REPEATED if kind[-1] in "]}" else field.LABEL_OPTIONAL
    if kind.endswith("{}"):
        entry = name.title().replace("_", "") + "Entry"
        pair = message.nested_type.add(name=entry)
        pair.options.map_entry = True
        _add(package, pair, "key", 1, "string")
        _add(package, pair, "value", 2, kind[:-2])
        kind = f"{message.name}.{entry}"
    kind = kind.removesuffix("[]")
    scalar = f"TYPE_{kind.upper()}"
    if hasattr(field, scalar):
        field.type = getattr(field, scalar)
    else:
        field.type, field.type_name = field.TYPE_MESSAGE, f".{package}.{kind}"
