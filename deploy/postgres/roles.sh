#!/bin/sh
# Makes the two roles and the database. Run once, by the image, when its volume is empty.
set -eu
psql --set ON_ERROR_STOP=1 --username postgres <<SQL
CREATE ROLE soulbox_owner LOGIN PASSWORD '${DATABASE_OWNER_PASSWORD}';
CREATE ROLE soulbox_app LOGIN PASSWORD '${DATABASE_APP_PASSWORD}';
CREATE DATABASE soulbox OWNER soulbox_owner;
SQL
