<?php
// php -S 127.0.0.1:3000 app.php
$id = $_SERVER['HTTP_X_USER_ID'] ?? ''; // what to store; empty for nobody
$name = rawurldecode($_SERVER['HTTP_X_USER_NAME'] ?? '');
$balance = $_SERVER['HTTP_X_USER_BALANCE'] ?? '';
if ($_SERVER['REQUEST_METHOD'] === 'POST') { // a call that costs the user money
    header('Tollgate-Balance: changed');
}
header('Content-Type: text/plain; charset=utf-8');
echo "$id is $name and has $balance\n";
