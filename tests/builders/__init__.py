"""Builders and stand-ins that tests share: small real objects, each in the room whose parts it builds."""
