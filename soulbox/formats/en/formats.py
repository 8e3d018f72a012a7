"""How the pages write times: sortable, and the same for everybody. They are UTC."""

DATETIME_FORMAT = "Y-m-d H:i:s"
DATE_FORMAT = "Y-m-d"
