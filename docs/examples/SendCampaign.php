<?php // app/Jobs/SendCampaign.php, for Laravel 11 and newer.
// Needs the exporter's address in services.mobizon.exporter, and MobizonApi bound in a service provider.

namespace App\Jobs;

use DateTimeInterface;
use Illuminate\Contracts\Queue\ShouldBeUnique;
use Illuminate\Contracts\Queue\ShouldQueue;
use Illuminate\Foundation\Queue\Queueable;
use Illuminate\Support\Facades\Http;
use Mobizon\MobizonApi;
use RuntimeException;

/** Sends a campaign once its recipients are loaded: SendCampaign::dispatch($campaignId, $taskId). */
class SendCampaign implements ShouldQueue, ShouldBeUnique
{
    use Queueable;

    public int $timeout = 75; // less than the queue's retry_after, which is 90 by default
    public int $maxExceptions = 30; // how often the exporter may be unavailable, at intervals of $backoff
    public int $backoff = 10;

    public function __construct(public int $campaignId, public int $taskId)
    {
    }

    public function uniqueId(): string
    {
        return (string) $this->campaignId;
    }

    public function retryUntil(): DateTimeInterface
    {
        return now()->addHours(4);
    }

    public function handle(MobizonApi $mobizon): void
    {
        $exporter = Http::baseUrl(config('services.mobizon.exporter'))->timeout(35);
        $task = "/api/v1/tasks/{$this->taskId}";
        // Registering again changes nothing.
        $exporter->put($task, ['name' => "campaign-{$this->campaignId}"])->throw();
        $answer = $exporter->get("$task/wait");
        match ($answer->status()) {
            200 => $this->send($mobizon),
            504 => $this->release(),
            503 => $this->release((int) $answer->header('Retry-After') ?: 10),
            409 => $this->reject($exporter->delete($task)->status()),
            404 => $this->fail(new RuntimeException("Task {$this->taskId} is unknown: {$answer->body()}")),
            default => $answer->throw(),
        };
    }

    private function send(MobizonApi $mobizon): void
    {
        if (!$mobizon->call('campaign', 'send', ['id' => $this->campaignId])) {
            $this->fail(new RuntimeException("Not sent: {$mobizon->getCode()} {$mobizon->getMessage()}"));
        }
    }

    private function reject(int $deleted): void
    {
        $this->fail(new RuntimeException("Task {$this->taskId} is rejected (deleted: $deleted)"));
    }
}
