SELECT
  date,
  category,
  region,
  sum(total_usd) AS revenue,
  count(*) AS order_count,
  count(DISTINCT customer_id) AS unique_customers,
  CAST(avg(total_usd) AS DECIMAL(18, 6)) AS avg_order_value
FROM enriched
GROUP BY date, category, region
