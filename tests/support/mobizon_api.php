<?php
// Stands in for Mobizon's official client: the same calls, answered by the simulated API whose address is in
// the environment.

namespace Mobizon;

class MobizonApi
{
    private int $code = -1;
    private mixed $data = [];
    private string $message = '';

    public function __construct(private string $apiKey, string $apiServer)
    {
        if (!str_starts_with($apiServer, 'api.mobizon.')) {
            throw new \Exception('no API server');
        }
    }

    public function call(
        string $provider,
        string $method,
        array $postParams = [],
        array $queryParams = [],
        bool $returnData = false
    ): mixed {
        $query = http_build_query(['api' => 'v1', 'apiKey' => $this->apiKey, 'output' => 'json'] + $queryParams);
        $url = getenv('MOBIZON_API') . '/service/' . strtolower($provider) . '/' . strtolower($method);
        $context = stream_context_create(['http' => [
            'method' => 'POST',
            'header' => 'Content-Type: application/x-www-form-urlencoded',
            'content' => http_build_query($postParams),
        ]]);
        $answer = json_decode((string) @file_get_contents("$url?$query", false, $context));
        if (!is_object($answer)) {
            throw new \Exception('Bad API result');
        }
        [$this->code, $this->data, $this->message] = [$answer->code, $answer->data, $answer->message];
        return $returnData ? $this->getData() : in_array($this->code, [0, 100]);
    }

    public function getCode(): int
    {
        return $this->code;
    }

    public function getData(): mixed
    {
        return empty($this->data) ? null : $this->data;
    }

    public function getMessage(): string
    {
        return $this->message;
    }
}
