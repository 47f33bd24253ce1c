<?php
// php -S 127.0.0.1:3000 app.php
$id = $_SERVER['HTTP_X_USER_ID'] ?? ''; // what to store; empty for nobody
$encoded = $_SERVER['HTTP_X_USER_NAME'] ?? '';
$name = rawurldecode($encoded);
if (preg_match('/%(?![0-9A-F]{2})/i', $encoded) || !preg_match('//u', $name)) {
    http_response_code(400);
    exit("not from the gateway\n");
}
$balance = $_SERVER['HTTP_X_USER_BALANCE'] ?? '';
if ($_SERVER['REQUEST_METHOD'] === 'POST') { // a call that costs the user money
    header('Tollgate-Balance: changed');
}
header('Content-Type: text/plain; charset=utf-8');
echo "$id is $name and has $balance\n";
