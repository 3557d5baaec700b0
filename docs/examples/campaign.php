<?php // Loads contact groups into a campaign, waits for the load, sends the campaign.
// Usage: php campaign.php CAMPAIGN GROUPS
// Needs mobizon/mobizon-php (https://packagist.org/packages/mobizon/mobizon-php) and the API key in the file mobizon_key.
require __DIR__ . '/vendor/autoload.php';
require __DIR__ . '/exporter.php';

[, $campaign, $groups] = $argv;
try {
    $mobizon = new Mobizon\MobizonApi(trim(file_get_contents('mobizon_key')), 'api.mobizon.kz');
    $mobizon->call('campaign', 'addRecipients', ['id' => $campaign, 'recipientGroups' => explode(',', $groups)]);
    // call() is true for code 0 and for code 100 alike; getData() is the task's id only for 100.
    if ($mobizon->getCode() !== 100) {
        throw new RuntimeException("no load was started: {$mobizon->getCode()} {$mobizon->getMessage()}");
    }
    $id = (int) $mobizon->getData();
    register_task($id, "campaign-$campaign");
    wait_for_task($id);
    if (!$mobizon->call('campaign', 'send', ['id' => $campaign])) {
        throw new RuntimeException("{$mobizon->getCode()} {$mobizon->getMessage()}");
    }
} catch (Exception $error) {
    fwrite(STDERR, "campaign $campaign is not sent: {$error->getMessage()}\n");
    exit(1);
}
echo "campaign $campaign is sent\n";
