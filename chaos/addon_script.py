"""What mitmproxy loads (``mitmdump -s``): the addon, made when mitmproxy asks for it."""

from chaos.addon import load_from_environment

addons = [load_from_environment()]
