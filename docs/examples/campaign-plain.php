<?php // Loads contact groups into a campaign, waits for the load, sends the campaign; without Mobizon's client.
// Usage: php campaign-plain.php CAMPAIGN GROUPS
// Needs the API key in the file mobizon_key.
require __DIR__ . '/exporter.php';

/** Calls a method of Mobizon's API. PHP's warning is suppressed because it prints the URL, and so the key. */
function mobizon(string $method, array $form): array
{
    $api = getenv('MOBIZON_API') ?: 'https://api.mobizon.kz';
    $key = trim(file_get_contents('mobizon_key'));
    $query = http_build_query(['output' => 'json', 'api' => 'v1', 'apiKey' => $key]);
    $context = stream_context_create(['http' => [
        'method' => 'POST',
        'header' => 'Content-Type: application/x-www-form-urlencoded',
        'content' => http_build_query($form),
        'timeout' => 60,
        'follow_location' => 0,
    ]]);
    $answer = json_decode((string) @file_get_contents("$api/service/$method?$query", false, $context), true);
    return is_array($answer) ? $answer : throw new RuntimeException("Mobizon does not answer $method");
}

[, $campaign, $groups] = $argv;
try {
    $answer = mobizon('campaign/addRecipients', ['id' => $campaign, 'recipientGroups' => $groups]);
    if ($answer['code'] !== 100) {
        throw new RuntimeException('no load was started: ' . json_encode($answer));
    }
    $id = (int) $answer['data'];
    register_task($id, "campaign-$campaign");
    wait_for_task($id);
    $answer = mobizon('campaign/send', ['id' => $campaign]);
    if ($answer['code'] !== 0) {
        throw new RuntimeException(json_encode($answer));
    }
} catch (Exception $error) {
    fwrite(STDERR, "campaign $campaign is not sent: {$error->getMessage()}\n");
    exit(1);
}
echo "campaign $campaign is sent\n";
