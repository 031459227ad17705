SELECT date, product, count(*) AS orders, sum(total) AS revenue
FROM orders
GROUP BY date, product
