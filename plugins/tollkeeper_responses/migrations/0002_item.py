"""The items that kept responses say, found by their own ids; they go with their response."""


def up(migrator, database):
    database.execute_sql(
        "CREATE TABLE responses_item ("
        " org VARCHAR(255) NOT NULL, id VARCHAR(255) NOT NULL, response VARCHAR(255) NOT NULL,"
        " item TEXT NOT NULL, PRIMARY KEY (org, id), FOREIGN KEY (org, response)"
        " REFERENCES responses_response (org, id) ON DELETE CASCADE)"
    )
    database.execute_sql("CREATE INDEX responses_item_response ON responses_item (org, response)")


def down(migrator, database):
    database.execute_sql("DROP TABLE responses_item")
