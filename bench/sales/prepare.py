"""Makes the sales benchmark's source data: the same rows on every machine, since every value is a hash of its row.

Argument: the folder to write to. Orders are in the order they came in (by date), in four files. Every 40th order was
sent twice: half of those a minute later, half at the same moment with a lower total. One total in a hundred is negative,
one product in a thousand and one currency in a thousand are unknown, 15 % of the statuses are not good ones.
"""

import sys
from pathlib import Path

import duckdb

ORDERS = 5_000_000
FILES = 4
DAYS = 30
PRODUCTS = 10_000
CUSTOMERS = 200_000
PARQUET = "(FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 1, ROW_GROUP_SIZE 122_880)"

folder = Path(sys.argv[1])
for name in ("orders", "products", "customers", "exchange_rates"):
    (folder / name).mkdir(parents=True, exist_ok=True)
connection = duckdb.connect()


def pick(draw, shares):
    """A value by its share of a thousand."""
    cases, sum_ = [], 0
    for value, share in shares:
        sum_ += share
        cases.append(f"WHEN {draw} < {sum_} THEN '{value}'")
    return f"CASE {' '.join(cases)} END"


def draw(salt, count, row="base"):
    return f"(hash({row} * 16 + {salt}) % {count})::BIGINT"


share = ORDERS // FILES
for file in range(FILES):
    connection.execute(f"""
        COPY (
            SELECT
                base + 1 AS order_id,
                1 + {draw(1, CUSTOMERS)} AS customer_id,
                1 + {draw(2, PRODUCTS * 1001 // 1000)} AS product_id,
                {pick(draw(3, 1000), [("USD", 400), ("EUR", 300), ("GBP", 150), ("JPY", 100), ("CHF", 49), ("XAU", 1)])}
                    AS currency,
                -- Ten-thousandths as an exact decimal(13,4), without a detour over doubles.
                CAST(
                    (10_000 + {draw(4, 90_000_000)} - CASE WHEN again AND row % 80 = 79 THEN 5_000 ELSE 0 END)
                    * CASE WHEN {draw(5, 100)} = 0 THEN -1 ELSE 1 END
                    AS DECIMAL(9,0)) * CAST(0.0001 AS DECIMAL(4,4)) AS total,
                {pick(draw(6, 1000), [("completed", 600), ("shipped", 250), ("pending", 80), ("cancelled", 50), ("unknown", 20)])}
                    AS status,
                TIMESTAMP '2024-01-01' + to_days((base * {DAYS} // {ORDERS})::INTEGER)
                    + to_seconds({draw(7, 82_800)}) + to_seconds(CASE WHEN again AND row % 80 = 39 THEN 60 ELSE 0 END)
                    AS created_at,
                DATE '2024-01-01' + (base * {DAYS} // {ORDERS})::INTEGER AS date
            FROM (
                SELECT range AS row, range % 40 = 39 AS again, range - CASE WHEN range % 40 = 39 THEN 1 ELSE 0 END AS base
                FROM range({file * share}, {(file + 1) * share})
            )
        ) TO '{folder}/orders/orders_{file}.parquet' {PARQUET}
    """)
connection.execute(f"""
    COPY (
        SELECT
            range + 1 AS product_id,
            ['books', 'clothing', 'electronics', 'food', 'games', 'garden', 'health', 'home', 'music', 'office', 'sports',
             'toys'][1 + {draw(8, 12, "range")}] AS category,
            ['Classic', 'Compact', 'Deluxe', 'Light', 'Solid', 'Travel'][1 + {draw(9, 6, "range")}]
                || ' ' || ['Basket', 'Cup', 'Frame', 'Lamp', 'Radio', 'Stand', 'Tray', 'Watch'][1 + {draw(10, 8, "range")}]
                || ' ' || (range + 1) AS product_name
        FROM range({PRODUCTS})
    ) TO '{folder}/products/products.parquet' {PARQUET}
""")
connection.execute(f"""
    COPY (
        SELECT
            range + 1 AS customer_id,
            ['Africa', 'Antarctica', 'Asia', 'Europe', 'Middle East', 'North America', 'Oceania', 'South America']
                [1 + {draw(11, 8, "range")}] AS region,
            'Customer ' || {draw(12, 1_000_000, "range")} AS customer_name
        FROM range({CUSTOMERS})
    ) TO '{folder}/customers/customers.parquet' {PARQUET}
""")
connection.execute(f"""
    COPY (
        SELECT currency_code, CAST(exchange_rate AS DECIMAL(18,8)) AS exchange_rate
        FROM (VALUES ('USD', '1'), ('EUR', '0.92135'), ('GBP', '0.790817'), ('JPY', '145.5213'), ('CHF', '0.864411'))
            AS rates(currency_code, exchange_rate)
    ) TO '{folder}/exchange_rates/rates.parquet' {PARQUET}
""")
(folder / "done").write_text(f"{ORDERS} orders\n")
