-- total_usd is exact and rounded half up. A decimal division keeps four digits more than its left side has and cuts
-- off the rest; so the left side gets twelve, the quotient sixteen, and the cast to six rounds. Cutting at sixteen
-- digits cannot move a number over a rounding border at six.
SELECT
  o.order_id,
  o.customer_id,
  c.customer_name,
  c.region,
  o.product_id,
  p.product_name,
  p.category,
  o.currency,
  o.total,
  r.exchange_rate,
  CAST(CAST(o.total AS DECIMAL(28, 12)) / r.exchange_rate AS DECIMAL(18, 6)) AS total_usd,
  o.status,
  o.created_at,
  o.date
FROM cleaned AS o
JOIN products AS p ON p.product_id = o.product_id
JOIN customers AS c ON c.customer_id = o.customer_id
LEFT JOIN rates AS r ON r.currency_code = o.currency
